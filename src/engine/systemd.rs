//! What the service manager is told, see sd_notify(3). Without one, nothing happens.
//!
//! The watchdog is fed from the engine's loop when the keeper has answered a ping, and nowhere
//! else: it bites when either of the two loops hangs.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::os::clock;
use crate::time::Instant;

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Notifier {
    /// Half of the manager's watchdog time.
    period: Option<Duration>,
    next: Option<Instant>,
}

impl Notifier {
    /// Reads `WATCHDOG_USEC`. `WATCHDOG_PID` names the keeper, for whom the brain speaks.
    pub(super) fn from_environment() -> Self {
        let period = std::env::var("WATCHDOG_USEC")
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|micros| *micros > 0)
            .map(|micros: u64| Duration::from_micros(micros) / 2);
        Self { period, next: period.map(|_| clock::now()) }
    }

    pub(super) fn is_present() -> bool {
        std::env::var_os("NOTIFY_SOCKET").is_some()
    }

    pub(super) fn ready(&mut self, keeper_pid: u32, status: &str) {
        send(&[NotifyState::MainPid(keeper_pid), NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Says that a new configuration is being read.
    pub(super) fn reloading(&self) {
        if let Ok(monotonic) = NotifyState::monotonic_usec_now() {
            send(&[NotifyState::Reloading, monotonic]);
        }
    }

    pub(super) fn reloaded(&self, status: &str) {
        send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Says that the end has begun and how long it may take.
    pub(super) fn stopping(&self, patience: Duration) {
        let micros = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
        send(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(micros),
            NotifyState::Status("stopping all programs"),
        ]);
    }

    pub(super) fn next_ping(&self) -> Option<Instant> {
        self.next
    }

    /// Returns whether it is time to ask the keeper for a sign of life.
    pub(super) fn take_ping(&mut self, now: Instant) -> bool {
        match (self.period, self.next) {
            (Some(period), Some(next)) if next <= now => {
                self.next = Some(now + period);
                true
            }
            _ => false,
        }
    }

    /// Feeds the watchdog: the keeper has answered, and this loop has heard it.
    pub(super) fn feed(&self) {
        send(&[NotifyState::Watchdog]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if Notifier::is_present()
        && let Err(error) = sd_notify::notify(states)
    {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
