//! Answers about healing as an engine would, for the bench of the API.

use std::sync::Arc;
use std::time::Duration;

use super::bench::{NOW, check, running};
use crate::config::{
    Address, Check, CheckKind, DeclaredCheck, Endpoint, Look, Remedy, Rung, TcpLook,
};
use crate::core::Actor;
use crate::core::care::{
    Answer, CheckId, HealthState, Hold, IncidentId, RemedyResult, Sample, Target, Verdict,
};
use crate::engine::{CheckStatus, Checks, Counts, HealingRequest, Why, Whys};

pub(super) fn play(request: HealingRequest) {
    // Whoever asked may have gone.
    match request {
        HealingRequest::Checks { names, reply } => {
            let _ = reply.send(check(&names).map(|()| checks()));
        }
        HealingRequest::RunChecks { names, reply, .. } => {
            let answers = vec![
                (id(), Answer::Result(sample(Verdict::Pass))),
                (id(), Answer::Refused("it does not run".to_owned())),
            ];
            let _ = reply.send(check(&names).map(|()| answers));
        }
        HealingRequest::Heal { names, rung, reply, .. } => {
            let text = format!("web:0 gets rung {rung:?}");
            let answers = vec![("web:0".to_owned(), Answer::Accepted(text))];
            let _ = reply.send(check(&names).map(|()| answers));
        }
        HealingRequest::Hold { names, reply, .. }
        | HealingRequest::Release { names, reply, .. } => {
            let _ = reply.send(check(&names).map(|()| vec!["web:0".to_owned()]));
        }
        HealingRequest::EndPanic { reply, .. } => {
            let _ = reply.send(Ok(()));
        }
        HealingRequest::Why { names, reply } => {
            let _ = reply.send(check(&names).map(|()| whys()));
        }
    }
}

fn id() -> CheckId {
    let target = Target::Process("web:0".parse().unwrap());
    CheckId { target, check: "port".parse().unwrap() }
}

fn sample(verdict: Verdict) -> Sample {
    let (detail, took) = ("connected".to_owned(), Duration::from_millis(5));
    Sample { verdict, detail, at: NOW.0 - Duration::from_secs(5), took }
}

pub(super) fn checks() -> Checks {
    let address = Address { host: "127.0.0.1".to_owned(), port: 8000 };
    let endpoint = Endpoint::Tcp(address);
    let look = Look::Tcp(TcpLook { endpoint, send: None, expect: None, latency: None });
    let rung = |remedy| Rung { remedy, timeout: Duration::from_secs(30) };
    let check = Check {
        heal: vec![rung(Remedy::Confirm), rung(Remedy::Restart)],
        ..Check::new("port".parse().unwrap(), CheckKind::Tcp)
    };
    let status = CheckStatus {
        id: id(),
        declared: Arc::new(DeclaredCheck { check, look, is_builtin: false }),
        state: HealthState::Up,
        since: NOW.0 - Duration::from_secs(60),
        warning: false,
        passes: 0,
        fails: 0,
        unknowns: 0,
        samples: vec![sample(Verdict::Fail), sample(Verdict::Pass)],
        next_run: Some(NOW.0 + Duration::from_secs(5)),
        rung: 0,
        quarantined_until: Some(NOW.0 + Duration::from_secs(300)),
    };
    Checks { checks: vec![status], now: NOW }
}

pub(super) fn counts() -> Counts {
    let checks = [(Verdict::Pass, 40), (Verdict::Fail, 2)].into_iter().collect();
    let restarts = [(RemedyResult::Verified, 3), (RemedyResult::NotDone, 1)];
    let remedies = restarts.map(|(result, count)| (("restart", result), count));
    Counts {
        checks,
        remedies: remedies.into_iter().collect(),
        incidents: 7,
        open_incidents: 1,
        captured_bytes: 4_096,
        dropped_bytes: 512,
        lost_records: 5,
    }
}

pub(super) fn whys() -> Whys {
    let by = Actor {
        uid: Some(1000),
        name: "alice".to_owned(),
        reason: Some("moves".to_owned()),
        at: NOW.1,
    };
    let why = Why {
        name: "web:0".to_owned(),
        process: Some(running()),
        health: HealthState::Held,
        standing: Some("is on hold for another 5 min".to_owned()),
        hold: Some(Hold { until: NOW.0 + Duration::from_secs(300), by }),
        waits_for: vec![("db".to_owned(), "down".to_owned())],
        checks: checks().checks,
        incident: Some(IncidentId(7)),
    };
    let mode_reasons = vec!["web:0 is down and is being healed".to_owned()];
    Whys { whys: vec![why], mode: "DEGRADED", mode_reasons, now: NOW }
}
