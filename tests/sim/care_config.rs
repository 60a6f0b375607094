//! Random checks and ladders: a few programs that require each other, and sometimes the host.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use mendd::config::{
    Check, CheckKind, CheckRole, FailRule, HealMode, Impact, ModeRules, Remedy, RemedyStep, Rung,
};
use mendd::core::care::pace::Places;
use mendd::core::care::{Charge, Settings, Target};

pub(crate) fn target(number: usize) -> Target {
    Target::Process(format!("p{number}").parse().expect("a good name"))
}

/// Makes the charges of one life. Edges lead to lower numbers only, so there are no cycles.
pub(crate) fn charges(rng: &mut Rng) -> Vec<Charge> {
    // Only among many are several healed at once.
    let count = if rng.u8(..5) == 0 { rng.usize(15..25) } else { rng.usize(1..9) };
    let mut charges: Vec<Charge> = (0..count).map(|number| charge(rng, number, count)).collect();
    if rng.bool() {
        let checks = vec![Arc::new(check(rng, 0, CheckKind::Disk, count))];
        let requires = Vec::new();
        let impact = Impact::Normal;
        charges.push(Charge { target: Target::Host, checks, requires, priority: 0, impact });
    }
    charges
}

fn charge(rng: &mut Rng, number: usize, count: usize) -> Charge {
    let kinds = [CheckKind::Http, CheckKind::Tcp, CheckKind::Exec, CheckKind::Process];
    let checks = (0..rng.usize(0..4))
        .map(|n| {
            let kind = kinds[rng.usize(..kinds.len())];
            Arc::new(check(rng, n, kind, count))
        })
        .collect();
    Charge {
        target: target(number),
        checks,
        requires: (0..number.min(5)).filter(|_| rng.u8(..4) == 0).map(target).collect(),
        priority: rng.i32(0..5),
        impact: [Impact::Minor, Impact::Normal, Impact::Critical][rng.usize(..3)],
    }
}

pub(crate) fn settings(rng: &mut Rng) -> Settings {
    let shed = |rng: &mut Rng| if rng.bool() { None } else { Some(rng.i32(1..5)) };
    Settings {
        places: Places { native: rng.usize(1..9), exec: rng.usize(1..3) },
        mode: ModeRules {
            shed_degraded: shed(rng),
            shed_emergency: shed(rng),
            ..ModeRules::default()
        },
    }
}

fn seconds(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_secs(rng.u64(range))
}

fn check(rng: &mut Rng, number: usize, kind: CheckKind, count: usize) -> Check {
    let interval = seconds(rng, 5..60);
    let roles =
        [CheckRole::Live, CheckRole::Live, CheckRole::Live, CheckRole::Start, CheckRole::Ready];
    let live_only = matches!(kind, CheckKind::Process | CheckKind::Disk);
    let role = if live_only { CheckRole::Live } else { roles[rng.usize(..roles.len())] };
    let of = rng.u32(3..9);
    let fail_if = match rng.u8(..4) {
        0 => FailRule::Among { failures: rng.u32(2..of), of },
        _ => FailRule::InARow(rng.u32(1..5)),
    };
    Check {
        role,
        impact: [Impact::Minor, Impact::Normal, Impact::Critical][rng.usize(..3)],
        interval,
        timeout: interval / 2,
        fail_if,
        rise: rng.u32(1..4),
        start_timeout: seconds(rng, 1..90),
        heal: (0..rng.usize(0..6)).map(|_| rung(rng, count)).collect(),
        mode: if rng.u8(..8) == 0 { HealMode::Observe } else { HealMode::Act },
        cooldown: seconds(rng, 1..120),
        stable: seconds(rng, 1..120),
        ..Check::new(format!("c{number}").parse().expect("a good name"), kind)
    }
}

fn rung(rng: &mut Rng, count: usize) -> Rung {
    let argv = || vec!["command".to_owned()];
    let step = |n: usize| RemedyStep { argv: argv(), undo: (n != 1).then(argv) };
    let remedy = match rng.u8(..14) {
        0 => Remedy::Confirm,
        1 => Remedy::Reload,
        2 => Remedy::Signal { signal: 18 },
        3..6 => Remedy::Restart,
        6 => Remedy::CleanRestart,
        7 => Remedy::RestartGroup,
        8 => Remedy::Run { argv: argv() },
        9 => Remedy::Steps((0..rng.usize(1..4)).map(step).collect()),
        10 => {
            let name = format!("p{}", rng.usize(..count));
            Remedy::Fallback { program: name.parse().expect("a good name") }
        }
        11 => Remedy::Shed,
        12 => Remedy::Alert,
        _ => [Remedy::Rollback, Remedy::Quarantine][rng.usize(..2)].clone(),
    };
    Rung { remedy, timeout: seconds(rng, 2..60) }
}
