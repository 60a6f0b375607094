//! What the control API asks of healing, and what it gets back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::DeclaredCheck;
use crate::core::care::{Answer, CheckId, HealthState, Hold, IncidentId, Sample};
use crate::core::{Actor, ProcessStatus};
use crate::engine::{Handle, Refusal, Request};
use crate::time::{Instant, Wall};

/// What can be asked. Each carries where its answer goes.
#[derive(Debug)]
pub enum HealingRequest {
    /// How checks stand, all of them when `names` is empty.
    Checks {
        names: Vec<String>,
        reply: oneshot::Sender<Result<Checks, Refusal>>,
    },
    /// Wants results that are at most `max_age` old, running the checks if need be.
    RunChecks {
        names: Vec<String>,
        max_age: Duration,
        reply: oneshot::Sender<Result<Vec<(CheckId, Answer)>, Refusal>>,
    },
    /// Wants what is down to be healed now, beginning with this rung of its ladder.
    Heal {
        names: Vec<String>,
        rung: Option<usize>,
        by: Actor,
        reply: oneshot::Sender<Result<Vec<(String, Answer)>, Refusal>>,
    },
    /// Wants no remedy and no alert for so long; answers with the names that it holds for.
    Hold {
        names: Vec<String>,
        time: Duration,
        by: Actor,
        reply: oneshot::Sender<Result<Vec<String>, Refusal>>,
    },
    Release {
        names: Vec<String>,
        by: Actor,
        reply: oneshot::Sender<Result<Vec<String>, Refusal>>,
    },
    /// Has seen the panic and wants healing to go on.
    EndPanic {
        by: Actor,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Why targets are as they are.
    Why {
        names: Vec<String>,
        reply: oneshot::Sender<Result<Whys, Refusal>>,
    },
}

/// How checks stand.
#[derive(Debug, Clone)]
pub struct Checks {
    pub checks: Vec<CheckStatus>,
    /// The pair that turns monotonic times into civil ones.
    pub now: (Instant, Wall),
}

/// How one check stands.
#[derive(Debug, Clone)]
pub struct CheckStatus {
    pub id: CheckId,
    pub declared: Arc<DeclaredCheck>,
    pub state: HealthState,
    pub since: Instant,
    /// The last pass came with a warning.
    pub warning: bool,
    /// In a row, as far as they decide something.
    pub passes: u32,
    pub fails: u32,
    pub unknowns: u32,
    /// The last results, oldest first.
    pub samples: Vec<Sample>,
    /// When it runs next, while it does not run.
    pub next_run: Option<Instant>,
    /// The rung of its ladder that comes next, from 0.
    pub rung: usize,
    pub quarantined_until: Option<Instant>,
}

/// The reasons for several targets.
#[derive(Debug, Clone)]
pub struct Whys {
    pub whys: Vec<Why>,
    pub mode: &'static str,
    /// What the mode follows from.
    pub mode_reasons: Vec<String>,
    pub now: (Instant, Wall),
}

/// Why one target is as it is.
#[derive(Debug, Clone)]
pub struct Why {
    /// `web:0`, or `host`.
    pub name: String,
    /// `None` for the host.
    pub process: Option<ProcessStatus>,
    pub health: HealthState,
    /// Why it is, or is not, being healed; goes on from the name. `None` while nothing is down.
    pub standing: Option<String>,
    pub hold: Option<Hold>,
    /// What it requires that is not well: name and state.
    pub waits_for: Vec<(String, String)>,
    pub checks: Vec<CheckStatus>,
    /// The incident in progress.
    pub incident: Option<IncidentId>,
}

impl Handle {
    async fn ask_healing<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> HealingRequest,
    ) -> Result<T, Refusal> {
        self.ask(|reply| Request::Healing(request(reply))).await?
    }

    /// Returns how checks stand, all of them when `names` is empty.
    pub async fn checks(&self, names: Vec<String>) -> Result<Checks, Refusal> {
        self.ask_healing(|reply| HealingRequest::Checks { names, reply }).await
    }

    /// Runs checks, unless there are results that are at most `max_age` old.
    pub async fn run_checks(
        &self,
        names: Vec<String>,
        max_age: Duration,
    ) -> Result<Vec<(CheckId, Answer)>, Refusal> {
        self.ask_healing(|reply| HealingRequest::RunChecks { names, max_age, reply }).await
    }

    pub async fn heal(
        &self,
        names: Vec<String>,
        rung: Option<usize>,
        by: Actor,
    ) -> Result<Vec<(String, Answer)>, Refusal> {
        self.ask_healing(|reply| HealingRequest::Heal { names, rung, by, reply }).await
    }

    pub async fn hold(
        &self,
        names: Vec<String>,
        time: Duration,
        by: Actor,
    ) -> Result<Vec<String>, Refusal> {
        self.ask_healing(|reply| HealingRequest::Hold { names, time, by, reply }).await
    }

    pub async fn release(&self, names: Vec<String>, by: Actor) -> Result<Vec<String>, Refusal> {
        self.ask_healing(|reply| HealingRequest::Release { names, by, reply }).await
    }

    pub async fn end_panic(&self, by: Actor) -> Result<(), Refusal> {
        self.ask_healing(|reply| HealingRequest::EndPanic { by, reply }).await
    }

    pub async fn why(&self, names: Vec<String>) -> Result<Whys, Refusal> {
        self.ask_healing(|reply| HealingRequest::Why { names, reply }).await
    }
}
