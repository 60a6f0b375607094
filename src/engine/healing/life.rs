//! What a process is doing as far as healing is concerned, made of what the core knows of it.
//!
//! A replacement is no failure, whoever wanted it: between the old run and the new one the process
//! waits. A run that is being stopped because it has failed waits as well, until it is known how it
//! ended. What has ended well and is not to be started again is stopped; what has ended badly has
//! failed, also where the restart policy leaves it so.

use crate::config::Lifecycle;
use crate::core::care::{Life, Retry};
use crate::core::{BreakerState, Goal, Snapshot, State, StateCode, exit};

/// Returns the life of a process. `never_born` says that the last spawn has failed, so that the
/// exit that is known is not that of the last attempt.
pub(super) fn life_of(facts: &Snapshot, lifecycle: &Lifecycle, never_born: bool) -> Life {
    if facts.goal == Goal::Down || facts.removed || facts.shed.is_some() {
        let by = facts.goal_by.as_ref().filter(|_| facts.goal == Goal::Down);
        return Life::Stopped { by_operator: by.is_some_and(|by| !by.is_mend()) };
    }
    let exit = facts.last_exit.map(|(exit, _)| exit).filter(|_| !never_born);
    let failed = |retry| Life::Failed { exit, retry };
    match facts.state {
        State::Stopped => Life::Stopped { by_operator: false },
        // It is restarted at once, when nothing is left of the run before.
        State::Waiting { shows: StateCode::Backoff, .. } if !facts.remains.is_empty() => {
            failed(Retry::Soon)
        }
        State::Waiting { .. } | State::Stopping { .. } => Life::Waiting,
        State::Starting { born: None, .. } => Life::Waiting,
        State::Starting { run, born: Some(_) } => Life::Starting { run },
        State::Running { run, .. } => Life::Running { run },
        State::Backoff { .. } => match facts.breaker.state {
            BreakerState::Open { .. } => failed(Retry::Later),
            BreakerState::Closed | BreakerState::HalfOpen => failed(Retry::Soon),
        },
        State::Exited => {
            let well = exit.is_some_and(|exit| exit::is_success(lifecycle, exit));
            match well && facts.failure.is_none() {
                true => Life::Stopped { by_operator: false },
                false => failed(Retry::Never),
            }
        }
        State::Fatal => failed(Retry::Never),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Program, RestartPolicy, StopStep};
    use crate::core::{Action, Actor, Command, Event, Exit, Mending, SpawnFailure, Supervisor};
    use crate::name::{ProcessName, RunId};
    use crate::time::{Instant, Wall};
    use std::sync::Arc;
    use std::time::Duration;

    /// A core with one program, and the lives that it went through.
    struct Bench {
        core: Supervisor,
        now: Instant,
        lives: Vec<Life>,
        last: Option<Life>,
        never_born: bool,
    }

    fn web() -> ProcessName {
        "web".parse().unwrap()
    }

    fn killed(signal: i32) -> Exit {
        Exit::Signal { signal, core_dumped: false }
    }

    impl Bench {
        fn new(change: impl FnOnce(&mut Program)) -> Self {
            let mut program = crate::core::bench::program("web");
            program.lifecycle.stop.steps =
                vec![StopStep { signal: 15, grace: Duration::from_secs(10) }];
            change(&mut program);
            let mut bench = Self {
                core: Supervisor::new(1),
                now: Instant::default() + Duration::from_secs(1000),
                lives: Vec::new(),
                last: None,
                never_born: false,
            };
            bench.send(Event::Configure(vec![Arc::new(program)]));
            bench
        }

        fn running(change: impl FnOnce(&mut Program)) -> (Self, RunId) {
            let mut bench = Self::new(change);
            let run = bench.born();
            (bench, run)
        }

        fn send(&mut self, event: Event) {
            self.never_born = matches!(event, Event::SpawnFailed { .. });
            let actions = self.core.on_event(self.now, event);
            self.note();
            for action in actions {
                if let Action::Sweep { run, .. } = action {
                    self.send(Event::Gone { run });
                }
            }
        }

        fn note(&mut self) {
            let facts = self.core.snapshot(&web()).unwrap();
            let program = Arc::clone(self.core.program(&web()).unwrap());
            let life = life_of(facts, &program.lifecycle, self.never_born);
            if self.last.replace(life) != Some(life) {
                self.lives.push(life);
            }
        }

        fn run(&self) -> RunId {
            self.core.status(&web()).unwrap().run.unwrap()
        }

        fn born(&mut self) -> RunId {
            let run = self.run();
            self.send(Event::Spawned { run, pid: 7 });
            run
        }

        fn dies(&mut self, exit: Exit) {
            let run = self.run();
            self.send(Event::Exited { run, exit });
        }

        fn pass(&mut self, seconds: u64) {
            self.now = self.now + Duration::from_secs(seconds);
            self.send(Event::DeadlineReached);
        }

        /// The lives since the last call.
        fn lives(&mut self) -> Vec<Life> {
            std::mem::take(&mut self.lives)
        }
    }

    fn no_policy(_: &mut Program) {}

    #[test]
    fn a_start_is_waited_for_then_starting_then_running() {
        let (mut bench, run) = Bench::running(|p| {
            p.lifecycle.start_period = Duration::from_secs(1);
        });
        bench.pass(2);
        assert_eq!(bench.lives(), [Life::Waiting, Life::Starting { run }, Life::Running { run }]);
    }

    #[test]
    fn an_end_that_nobody_asked_for_has_failed_and_each_new_one_anew() {
        let (mut bench, _) = Bench::running(no_policy);
        bench.lives();
        bench.dies(killed(9));
        let failed = Life::Failed { exit: Some(killed(9)), retry: Retry::Soon };
        assert_eq!(bench.lives().first(), Some(&failed));
        bench.pass(60);
        let run = bench.born();
        bench.dies(killed(9));
        assert!(bench.lives().ends_with(&[Life::Running { run }, failed]));
    }

    #[test]
    fn an_open_breaker_is_told_from_the_next_try() {
        let (mut bench, _) = Bench::running(|p| p.lifecycle.breaker.failures = 1);
        bench.dies(Exit::Code(3));
        let later = Life::Failed { exit: Some(Exit::Code(3)), retry: Retry::Later };
        assert_eq!(bench.lives.last(), Some(&later));
    }

    #[test]
    fn a_replacement_by_mend_or_by_hand_is_no_failure() {
        let (mut bench, run) = Bench::running(no_policy);
        let by = Actor::mend("incident 1".into(), Wall(0));
        for again in 0..2 {
            bench.lives();
            let processes = vec![web()];
            let by = by.clone();
            bench.send(match again {
                0 => Event::Mend { what: Mending::Replace, processes, by },
                _ => Event::Operator(Command::Restart { processes, by }),
            });
            bench.dies(killed(15));
            let next = bench.born();
            assert!(next > run);
            assert_eq!(bench.lives(), [Life::Waiting, Life::Running { run: next }]);
        }
    }

    #[test]
    fn what_an_operator_has_stopped_is_his_and_what_is_shed_is_not() {
        let by = Actor { uid: Some(7), name: "alice".into(), reason: None, at: Wall(0) };
        let (mut bench, _) = Bench::running(no_policy);
        bench.lives();
        bench.send(Event::Operator(Command::Stop { processes: vec![web()], by }));
        assert_eq!(bench.lives(), [Life::Stopped { by_operator: true }]);
        bench.dies(killed(15));
        assert_eq!(bench.lives(), []);
        let (mut bench, _) = Bench::running(no_policy);
        bench.lives();
        let by = Actor::mend("incident 1".into(), Wall(0));
        bench.send(Event::Mend { what: Mending::Shed, processes: vec![web()], by });
        bench.dies(killed(15));
        assert_eq!(bench.lives(), [Life::Stopped { by_operator: false }]);
    }

    #[test]
    fn an_end_that_its_policy_allows_is_a_stop_and_a_bad_one_is_not() {
        let on_failure = |p: &mut Program| p.lifecycle.restart = RestartPolicy::OnFailure;
        let (mut bench, _) = Bench::running(on_failure);
        bench.dies(Exit::Code(0));
        assert_eq!(bench.lives.last(), Some(&Life::Stopped { by_operator: false }));
        let (mut bench, _) = Bench::running(|p| p.lifecycle.restart = RestartPolicy::Never);
        bench.dies(Exit::Code(1));
        let failed = Life::Failed { exit: Some(Exit::Code(1)), retry: Retry::Never };
        assert_eq!(bench.lives.last(), Some(&failed));
    }

    #[test]
    fn what_never_came_to_life_has_no_exit_whatever_the_run_before_had() {
        let (mut bench, _) = Bench::running(no_policy);
        bench.dies(Exit::Code(1));
        bench.pass(60);
        let run = bench.run();
        let failure = SpawnFailure { message: "no such file".into(), transient: false };
        bench.send(Event::SpawnFailed { run, failure });
        let never = Life::Failed { exit: None, retry: Retry::Never };
        assert_eq!(bench.lives.last(), Some(&never));
    }

    #[test]
    fn what_waits_for_a_requirement_has_not_failed() {
        let mut bench = Bench::new(no_policy);
        let mut db = crate::core::bench::program("db");
        db.lifecycle.autostart = false;
        let mut web = crate::core::bench::program("web");
        web.lifecycle.requires = vec!["db".parse().unwrap()];
        for _ in 0..2 {
            bench.born();
            bench.dies(Exit::Code(1));
        }
        assert!(matches!(bench.last, Some(Life::Failed { .. })));
        let by = Actor { uid: Some(7), name: "alice".into(), reason: None, at: Wall(0) };
        bench.send(Event::Configure(vec![Arc::new(db), Arc::new(web)]));
        let processes = vec!["db".parse().unwrap()];
        bench.send(Event::Operator(Command::Stop { processes, by }));
        bench.pass(60);
        assert_eq!(bench.last, Some(Life::Waiting));
    }
}
