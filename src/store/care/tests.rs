//! Everything that is remembered survives its record, and a reboot.

use std::time::Duration;

use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::config::{Remedy, RemedyStep};
use crate::core::breaker::Breaker;
use crate::core::care::brakes::{Brakes, Panic, PanicState};
use crate::core::care::cause::{Cause, Confidence, Finding};
use crate::core::care::gate::{Episode, PressureGate};
use crate::core::care::health::{Health, Phase, Recent};
use crate::core::care::ladder::Ladder;
use crate::core::care::mode::{Lasting, ModeState};
use crate::core::care::transaction::{Transaction, TransactionStage};
use crate::core::care::{CheckFacts, Course, Hold, Incident, IncidentId, RemedyId};
use crate::core::rate::{Rate, Window};
use crate::core::{Actor, BreakerState};
use crate::name::RunId;

fn instants() -> impl Strategy<Value = Instant> {
    any::<u64>().prop_map(Instant::from_nanos)
}

fn windows() -> impl Strategy<Value = Window> {
    prop::collection::vec(instants(), 0..4).prop_map(|times| Window { times: times.into() })
}

fn argvs() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(".*", 1..3)
}

fn remedies() -> impl Strategy<Value = Remedy> {
    let step = (argvs(), of(argvs())).prop_map(|(argv, undo)| RemedyStep { argv, undo });
    prop_oneof![
        Just(Remedy::Confirm),
        Just(Remedy::Reload),
        any::<i32>().prop_map(|signal| Remedy::Signal { signal }),
        Just(Remedy::Restart),
        Just(Remedy::CleanRestart),
        Just(Remedy::RestartGroup),
        argvs().prop_map(|argv| Remedy::Run { argv }),
        prop::collection::vec(step, 0..3).prop_map(Remedy::Steps),
        Just(Remedy::Fallback { program: "standby".parse().unwrap() }),
        Just(Remedy::Rollback),
        Just(Remedy::Shed),
        Just(Remedy::Alert),
        Just(Remedy::Quarantine),
    ]
}

fn transactions() -> impl Strategy<Value = Transaction> {
    let stage = prop_oneof![
        any::<usize>().prop_map(|step| TransactionStage::Doing { step }),
        (any::<usize>(), ".*").prop_map(|(step, why)| TransactionStage::Undoing { step, why }),
        Just(TransactionStage::Done),
        ".*".prop_map(|why| TransactionStage::Undone { why }),
    ];
    (stage, prop::collection::vec(any::<usize>(), 0..3))
        .prop_map(|(stage, not_undone)| Transaction { stage, not_undone })
}

fn findings() -> impl Strategy<Value = Finding> {
    let confidences =
        prop::sample::select(vec![Confidence::Guess, Confidence::Likely, Confidence::Certain]);
    let causes = prop::sample::select(Cause::ALL.to_vec());
    (causes, confidences, prop::collection::vec(".*", 0..3), ".*").prop_map(
        |(cause, confidence, facts, sentence)| Finding { cause, confidence, facts, sentence },
    )
}

fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::None),
        instants().prop_map(|until| Phase::Starting { until }),
        Just(Phase::Up),
        Just(Phase::Suspect),
        Just(Phase::Down),
        Just(Phase::Healing),
        (instants(), instants()).prop_map(|(until, grace)| Phase::Verifying { until, grace }),
    ]
}

prop_compose! {
    fn healths()(
        phase in phases(),
        since in instants(),
        counts in any::<(u32, u32, u32)>(),
        recent in any::<u64>(),
        flags in any::<(bool, bool, bool)>(),
        changes in windows(),
    ) -> Health {
        Health {
            phase, since, changes,
            passes: counts.0,
            fails: counts.1,
            unknowns: counts.2,
            recent: Recent(recent),
            warning: flags.0,
            failing: flags.1,
            flapping: flags.2,
        }
    }
}

prop_compose! {
    fn ladders()(
        next in any::<usize>(),
        uses in prop::collection::vec((instants(), any::<usize>()), 0..4),
        confirming in any::<Option<u32>>(),
        stable_at in of(instants()),
        until in of(instants()),
        opened in any::<u32>(),
        alerted in any::<bool>(),
    ) -> Ladder {
        let state = until.map_or(BreakerState::HalfOpen, |until| BreakerState::Open { until });
        let quarantine = Breaker { state, failures: until.into_iter().collect(), opened };
        Ladder { next, uses: uses.into(), confirming, stable_at, quarantine, alerted }
    }
}

prop_compose! {
    fn incidents()(
        times in (instants(), of(instants()), of(instants())),
        finding in of(findings()),
        counts in any::<(u64, u32, u32)>(),
        alerted in any::<bool>(),
    ) -> Incident {
        Incident {
            id: IncidentId(counts.0),
            opened: times.0,
            evidence_by: times.1,
            finding,
            begun: counts.1,
            failed: counts.2,
            alerted,
            recovered: times.2,
        }
    }
}

prop_compose! {
    fn courses()(
        numbers in any::<(u64, u64, usize, u64)>(),
        what in remedies(),
        began in instants(),
        acting_until in of(instants()),
        transaction in of(transactions()),
    ) -> Course {
        Course {
            remedy: RemedyId(numbers.0),
            incident: IncidentId(numbers.1),
            check: "http".parse().unwrap(),
            rung: numbers.2,
            what,
            limit: Duration::from_nanos(numbers.3),
            began,
            acting_until,
            transaction,
        }
    }
}

prop_compose! {
    fn targets()(
        host in any::<bool>(),
        run in any::<Option<u64>>(),
        hold in of((instants(), ".*")),
        times in (of(instants()), windows(), of(instants())),
        incident in of(incidents()),
        course in of(courses()),
        flags in any::<(bool, bool)>(),
        check in of((healths(), ladders())),
    ) -> TargetFacts {
        let by = |name| Actor { uid: Some(7), name, reason: None, at: Wall(1) };
        let checks = check.map(|(health, ladder)| {
            ("http".parse().unwrap(), CheckFacts { health, ladder })
        });
        TargetFacts {
            target: if host { Target::Host } else { Target::Process("web:1".parse().unwrap()) },
            run: run.map(RunId),
            hold: hold.map(|(until, name)| Hold { until, by: by(name) }),
            last_attempt: times.0,
            attempts: times.1,
            failing_since: times.2,
            incident,
            course,
            fallbacks: if flags.0 { vec!["standby".parse().unwrap()] } else { Vec::new() },
            sheds_others: flags.1,
            checks: checks.into_iter().map(|(name, check)| (name, Box::new(check))).collect(),
        }
    }
}

prop_compose! {
    fn hosts()(
        recent in prop::collection::vec(instants(), 0..3),
        panic in of((instants(), instants(), of(instants()))),
        pressure in of((instants(), instants())),
        lasting in (any::<bool>(), of(instants())),
        numbers in any::<(u64, u64, u64, u64)>(),
        shed in any::<bool>(),
    ) -> HostFacts {
        let target = || Target::Process("web".parse().unwrap());
        let state = panic.map_or(PanicState::Calm, |(since, last_failure, better_since)| {
            PanicState::Panic { since, last_failure, better_since }
        });
        HostFacts {
            brakes: Brakes {
                running: [Target::Host].into(),
                recent: recent.into_iter().map(|at| (at, target())).collect(),
            },
            panic: Panic { state, seen_until: Instant::from_nanos(numbers.0) },
            panic_incident: shed.then_some(IncidentId(numbers.1)),
            gate: PressureGate {
                episode: pressure.map(|(since, last_seen)| Episode { since, last_seen }),
            },
            mode: ModeState {
                degraded: Lasting { on: lasting.0, differs_since: lasting.1 },
                emergency: Lasting { on: !lasting.0, differs_since: None },
            },
            evidence: Rate { due: Instant::from_nanos(numbers.2) },
            shed: shed.then(target).into_iter().collect(),
            next_incident: numbers.1,
            next_remedy: numbers.2,
            generation: numbers.3,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_target_survives_the_record(facts in targets()) {
        prop_assert_eq!(decode_target(&encode_target(&facts)).unwrap(), facts);
    }

    #[test]
    fn every_host_survives_the_record(facts in hosts()) {
        prop_assert_eq!(decode_host(&encode_host(&facts)).unwrap(), facts);
    }

    #[test]
    fn a_torn_record_is_refused(facts in targets(), cut in 1_usize..50) {
        let json = encode_target(&facts);
        prop_assert!(decode_target(&json[..json.len().saturating_sub(cut)]).is_err());
    }

    #[test]
    fn all_of_it_survives_within_a_boot_but_for_the_runs(host in hosts(), facts in targets()) {
        let written = (Instant::from_nanos(5), Wall(6));
        let all = Remembered { boot: "a".into(), written, host, targets: vec![facts] };
        let read = decode_all(&encode_all(&all)).unwrap();
        prop_assert_eq!(&read, &all);
        let mut after = read.at("a", written);
        for (target, before) in after.targets.iter_mut().zip(&all.targets) {
            prop_assert!(target.run.is_none() || target.target == Target::Host);
            target.run = before.run;
        }
        prop_assert_eq!(after, all);
    }
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// A target that was written down 10,000 s after the boot.
fn remembered(hold: u64, last_attempt: u64) -> Remembered {
    let mut facts = blank("web");
    let by = Actor { uid: Some(7), name: "alice".into(), reason: None, at: Wall(1) };
    facts.hold = Some(Hold { until: at(hold), by });
    facts.last_attempt = Some(at(last_attempt));
    facts.run = Some(RunId(12));
    Remembered {
        boot: "old".into(),
        written: (at(10_000), Wall(1_000_000_000)),
        host: HostFacts::default(),
        targets: vec![facts],
    }
}

fn blank(name: &str) -> TargetFacts {
    let json = format!(r#"{{"target":"{name}"}}"#);
    decode_target(json.as_bytes()).unwrap()
}

#[test]
fn after_a_reboot_times_lie_where_civil_time_says() {
    let facts = |remembered: Remembered, uptime: u64, passed: i64| {
        let now = (at(uptime), Wall(1_000_000_000 + passed * 1_000));
        let facts = remembered.at("new", now).targets.remove(0);
        (facts.hold.unwrap().until, facts.last_attempt.unwrap(), facts.run)
    };
    // The hold had another 600 s, the attempt was 30 s ago; 100 s have passed since.
    assert_eq!(facts(remembered(10_600, 9_970), 500, 100), (at(1_000), at(370), None));
    // The clock of the new boot does not reach back so far.
    assert_eq!(facts(remembered(10_600, 9_970), 50, 100), (at(550), at(0), None));
    // The hold is over.
    assert_eq!(facts(remembered(10_060, 9_970), 500, 100).0, at(500));
    // The civil clock was set back: nothing lasts longer than it would have.
    assert_eq!(facts(remembered(10_600, 9_970), 500, -5_000), (at(1_100), at(470), None));
}

#[test]
fn a_target_that_is_not_understood_is_left_out_alone() {
    let mut json = encode_all(&remembered(1, 1));
    let text = String::from_utf8(std::mem::take(&mut json)).unwrap();
    let text = text.replace(r#""targets":["#, r#""targets":[{"target":"no name"},"#);
    assert_eq!(decode_all(text.as_bytes()).unwrap().targets.len(), 1);
    assert!(decode_all(b"nonsense").is_err());
}
