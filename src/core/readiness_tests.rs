//! Readiness, the watchdog and restarts for the sake of another program.

use super::bench::*;
use super::plan::Programs;
use super::*;
use crate::config::{Address, Probe, Probing, Program, Ready, RestartPolicy};
use crate::name::RunId;
use std::sync::Arc;

const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);
const ABORT: i32 = 6;

fn with_ready(name: &str, ready: Ready) -> Program {
    program_with(name, |p| {
        p.lifecycle.ready = Some(ready);
        p.lifecycle.start_timeout = TIMEOUT;
        // Without a meaning where there is a `ready`.
        p.lifecycle.start_period = SECOND;
    })
}

fn with_tcp(name: &str) -> Program {
    let address = Address { host: "127.0.0.1".into(), port: 5432 };
    let probing = Probing { probe: Probe::Tcp(address), interval: None, timeout: SECOND };
    with_ready(name, Ready::Probe(probing))
}

fn with_watchdog(name: &str) -> Program {
    program_with(name, |p| p.lifecycle.watchdog = Some(30 * SECOND))
}

fn restart_with(name: &str, other: &str) -> Program {
    program_with(name, |p| p.lifecycle.restart_with = vec![other.parse().unwrap()])
}

impl Bench {
    fn ready(&mut self, process: &str) -> Vec<Action> {
        let run = self.run(process);
        self.send(Event::Ready { run })
    }

    fn says(&mut self, process: &str, word: Word) -> Vec<Action> {
        let run = self.run(process);
        self.send(Event::Told { run, word })
    }

    fn reason(&self, process: &str) -> String {
        self.status(process).reason
    }
}

#[test]
fn a_process_is_starting_until_it_is_ready_however_long_its_start_period_was() {
    let mut bench = Bench::running(vec![with_ready("web", Ready::Notify)]);
    assert_eq!(bench.status("web").ready, Some(false));
    bench.advance(59 * SECOND);
    assert_eq!(bench.state("web"), StateCode::Starting);
    assert_eq!(bench.ready("web"), []);
    assert_eq!((bench.state("web"), bench.status("web").ready), (StateCode::Running, Some(true)));
    assert_eq!(bench.told.last().unwrap().detail, "pid 101, ready after 59 s");
    bench.advance(3600 * SECOND);
    assert_eq!(bench.state("web"), StateCode::Running);
}

#[test]
fn ready_1_counts_for_who_declares_it_and_from_when_it_is_declared() {
    let mut bench = Bench::running(vec![with_tcp("web")]);
    bench.says("web", Word::Ready);
    assert_eq!(bench.state("web"), StateCode::Starting);
    // Nothing else of how it was spawned changes: it has a watchdog.
    bench.configure(vec![with_ready("web", Ready::Notify)]);
    assert_eq!((bench.state("web"), bench.status("web").ready), (StateCode::Running, Some(true)));
    // Its next run must say it anew.
    let run = bench.run("web");
    bench.exited(run, 0);
    bench.gone(run);
    bench.advance(SECOND);
    bench.spawn_all();
    assert_eq!(bench.state("web"), StateCode::Starting);
    bench.says("web", Word::Ready);
    assert_eq!(bench.state("web"), StateCode::Running);
}

#[test]
fn a_start_of_which_a_word_may_be_lost_is_not_stopped_for_its_silence() {
    let mut bench = Bench::running(vec![with_ready("web", Ready::Notify), with_tcp("db")]);
    bench.says("web", Word::Unheard);
    bench.says("db", Word::Unheard);
    assert_eq!(
        bench.reason("web"),
        "what it said of its readiness may be lost; counts as running 1 min after its start"
    );
    assert_eq!((bench.state("web"), bench.status("web").gives_up_at), (StateCode::Starting, None));
    bench.advance(TIMEOUT);
    assert_eq!(bench.state("web"), StateCode::Running);
    let told = bench.told.iter().rfind(|change| change.process.to_string() == "web").unwrap();
    assert_eq!(told.detail, "pid 102; nobody knows whether it is ready");
    assert_eq!(bench.state("db"), StateCode::Stopping, "a probe finds out again");
}

#[test]
fn without_readiness_nothing_says_that_it_is_there() {
    let mut bench = Bench::running(vec![program("web")]);
    assert_eq!((bench.status("web").ready, bench.state("web")), (None, StateCode::Running));
    // A word that nobody asked for.
    assert_eq!(bench.ready("web"), []);
    assert_eq!(bench.status("web").gives_up_at, None);
}

#[test]
fn readiness_by_time_is_a_matter_of_the_core_alone() {
    let mut bench = Bench::running(vec![with_ready("web", Ready::After(90 * SECOND))]);
    assert_eq!(bench.status("web").gives_up_at, None);
    assert_eq!(bench.reason("web"), "counts as running 1 min 30 s after its start");
    assert_eq!(bench.advance(90 * SECOND), []);
    assert_eq!(bench.state("web"), StateCode::Running);
}

#[test]
fn a_start_that_takes_too_long_is_stopped_and_is_a_failure_that_says_what_was_awaited() {
    let mut bench = Bench::running(vec![with_tcp("db")]);
    assert_eq!(bench.reason("db"), "waits for tcp 127.0.0.1:5432; gives up 1 min after its start");
    bench.says("db", Word::Look("connection refused".into()));
    let reason = "tcp 127.0.0.1:5432: connection refused; gives up 1 min after its start";
    assert_eq!(bench.reason("db"), reason);
    let run = bench.run("db");
    assert_eq!(bench.advance(TIMEOUT), [signal(run, TERM)]);
    let why = "not ready after 1 min: tcp 127.0.0.1:5432: connection refused";
    assert_eq!(bench.reason("db"), format!("{why}; the stop signal was sent"));
    bench.exited(run, 0);
    assert_eq!(bench.gone(run), []);
    assert_eq!((bench.state("db"), bench.status("db").failures.0), (StateCode::Backoff, 1));
    assert_eq!(bench.reason("db"), format!("{why}; 1st failure in a row"));
    let told = &bench.told.last().unwrap().detail;
    assert_eq!(*told, format!("{why}; exited with code 0; next try in 1 s, 1st of 5"));
    assert_eq!(bench.advance(SECOND).len(), 1);
    assert_eq!(bench.state("db"), StateCode::Starting);
}

#[test]
fn late_starts_open_the_breaker_like_any_other_failure() {
    let mut bench = Bench::running(vec![program_with("db", |p| {
        *p = with_tcp("db");
        p.lifecycle.start_timeout = 2 * SECOND;
    })]);
    for _ in 0..5 {
        bench.spawn_all();
        let run = bench.run("db");
        bench.advance(2 * SECOND);
        bench.dies(run, 0);
        let wait = bench.status("db").retry_at.unwrap().since(bench.now);
        bench.advance(wait.min(60 * SECOND));
    }
    assert!(matches!(bench.status("db").breaker, BreakerState::Open { .. }));
}

#[test]
fn a_start_may_take_longer_when_the_run_says_so_and_never_shorter() {
    let mut bench = Bench::running(vec![with_ready("web", Ready::Notify)]);
    bench.says("web", Word::Extend(SECOND));
    bench.advance(50 * SECOND);
    bench.says("web", Word::Extend(30 * SECOND));
    assert_eq!(bench.advance(29 * SECOND), []);
    let run = bench.run("web");
    assert_eq!(bench.advance(SECOND), [signal(run, TERM)]);
    // Its stop as well.
    bench.advance(9 * SECOND);
    bench.says("web", Word::Extend(30 * SECOND));
    assert_eq!(bench.advance(29 * SECOND), []);
    assert_eq!(bench.advance(SECOND), [Action::KillTree { run }]);
}

#[test]
fn a_program_that_never_restarts_is_exited_after_a_late_start() {
    let mut bench = Bench::running(vec![program_with("job", |p| {
        *p = with_ready("job", Ready::Descriptor(3));
        p.lifecycle.restart = RestartPolicy::Never;
    })]);
    let run = bench.run("job");
    bench.advance(TIMEOUT);
    bench.dies(run, 0);
    assert_eq!(bench.state("job"), StateCode::Exited);
    let reason = "not ready after 1 min: waits for a line on its descriptor 3; its restart policy \
                  leaves it so";
    assert_eq!(bench.reason("job"), reason);
}

#[test]
fn an_operator_ends_the_wait_of_a_late_start() {
    let mut bench = Bench::running(vec![with_tcp("db")]);
    let run = bench.run("db");
    bench.advance(TIMEOUT);
    bench.start("db");
    let actions = bench.dies(run, 0);
    assert_eq!(actions.last(), Some(&bench.spawn_action("db")), "it starts at once");
    let run = bench.run("db");
    bench.spawn_all();
    bench.advance(TIMEOUT);
    bench.stop("db");
    bench.dies(run, 0);
    assert_eq!(bench.state("db"), StateCode::Stopped);
}

#[test]
fn a_dependant_waits_for_readiness_and_says_for_what() {
    let mut bench = Bench::running(vec![with_tcp("db"), requires("web", "db")]);
    bench.says("db", Word::Look("connection refused".into()));
    let reason = "requires `db`, which is not ready: tcp 127.0.0.1:5432: connection refused; gives \
                  up 1 min after its start";
    assert_eq!(bench.reason("web"), reason);
    bench.ready("db");
    assert_eq!(bench.state("web"), StateCode::Starting);
    // A requirement that failed says why.
    bench.spawn_all();
    let (db, web) = (bench.run("db"), bench.run("web"));
    bench.dies(db, 1);
    bench.dies(web, 1);
    bench.advance(SECOND);
    bench.spawn_all();
    let run = bench.run("db");
    bench.advance(TIMEOUT);
    bench.dies(run, 0);
    let reason = bench.reason("web");
    assert!(reason.contains("which has failed (not ready after 1 min"), "{reason}");
}

#[test]
fn a_start_is_judged_by_the_readiness_that_is_declared_now_and_a_running_one_stays() {
    let mut bench = Bench::running(vec![with_tcp("web")]);
    bench.says("web", Word::Look("connection refused".into()));
    let by_line = with_ready("web", Ready::Log("up".into()));
    bench.configure(vec![by_line]);
    assert_eq!(bench.state("web"), StateCode::Starting);
    let reason = bench.reason("web");
    assert!(!reason.contains("connection refused"), "{reason}");
    bench.ready("web");
    assert_eq!(bench.state("web"), StateCode::Running);
    bench.configure(vec![with_tcp("web")]);
    assert_eq!(bench.state("web"), StateCode::Running, "it was ready once");
}

#[test]
fn a_word_about_an_earlier_run_is_dropped() {
    let mut bench = Bench::running(vec![with_ready("web", Ready::Notify)]);
    let old = bench.run("web");
    bench.dies(old, 1);
    bench.advance(SECOND);
    bench.spawn_all();
    assert_ne!(bench.run("web"), old);
    bench.send(Event::Ready { run: old });
    bench.send(Event::Told { run: old, word: Word::Status("old".into()) });
    bench.send(Event::Ready { run: RunId(99) });
    let status = bench.status("web");
    assert_eq!((status.state, status.status_text), (StateCode::Starting, None));
}

#[test]
fn what_a_run_says_of_itself_is_shown_while_it_lives() {
    let mut bench = Bench::running(vec![with_ready("web", Ready::Notify)]);
    bench.says("web", Word::Status("loading 3 of 7".into()));
    assert_eq!(bench.status("web").status_text.as_deref(), Some("loading 3 of 7"));
    let run = bench.run("web");
    bench.dies(run, 1);
    assert_eq!(bench.status("web").status_text, None);
}

#[test]
fn a_watchdog_that_is_not_fed_aborts_the_run_then_kills_it_and_counts_a_failure() {
    let mut bench = Bench::running(vec![with_watchdog("web")]);
    let run = bench.run("web");
    bench.advance(29 * SECOND);
    bench.says("web", Word::Alive);
    assert_eq!(bench.advance(29 * SECOND), []);
    assert_eq!(bench.advance(SECOND), [signal(run, ABORT)]);
    assert_eq!(bench.advance(GRACE), [Action::KillTree { run }]);
    bench.exited(run, 0);
    let actions = bench.gone(run);
    assert_eq!(actions, [bench.spawn_action("web")], "it had run: the first try is at once");
    let told = bench.told.iter().map(|change| change.detail.as_str()).collect::<Vec<_>>();
    assert!(told.contains(&"has not fed its watchdog for 30 s; SIGABRT, grace 10 s"), "{told:?}");
}

#[test]
fn a_run_may_set_turn_off_and_call_its_own_watchdog() {
    let mut bench = Bench::running(vec![with_watchdog("web")]);
    let run = bench.run("web");
    bench.says("web", Word::Watchdog(std::time::Duration::ZERO));
    assert_eq!(bench.advance(3600 * SECOND), []);
    bench.says("web", Word::Watchdog(5 * SECOND));
    assert_eq!(bench.advance(4 * SECOND), []);
    assert_eq!(bench.says("web", Word::Hung), [signal(run, ABORT)]);
    assert_eq!(bench.reason("web"), "called its watchdog; the stop signal was sent");
    // Without a declared watchdog these are words only.
    let mut bench = Bench::running(vec![program("web")]);
    bench.says("web", Word::Watchdog(SECOND));
    assert_eq!(bench.advance(3600 * SECOND), []);
}

#[test]
fn the_watchdog_begins_when_the_start_is_over() {
    let mut bench = Bench::running(vec![program_with("web", |p| {
        *p = with_ready("web", Ready::Notify);
        p.lifecycle.watchdog = Some(30 * SECOND);
    })]);
    assert_eq!(bench.advance(50 * SECOND), []);
    bench.ready("web");
    assert_eq!(bench.advance(29 * SECOND), []);
    assert_eq!(bench.advance(SECOND).len(), 1);
}

#[test]
fn a_program_is_replaced_when_the_one_it_restarts_with_is_back() {
    let mut bench = Bench::running(vec![with_tcp("db"), restart_with("web", "db")]);
    assert_eq!(bench.state("web"), StateCode::Stopped, "order as with `after`");
    bench.ready("db");
    bench.spawn_all();
    let (db, web) = (bench.run("db"), bench.run("web"));
    bench.dies(db, 1);
    bench.advance(SECOND);
    bench.spawn_all();
    assert_eq!(bench.run("web"), web, "as long as `db` is not back");
    assert_eq!(bench.ready("db"), [signal(web, TERM)]);
    assert_eq!(bench.reason("web").split(';').next(), Some("restarting because `db` was replaced"));
    let actions = bench.dies(web, 0);
    assert_eq!(actions.last(), Some(&bench.spawn_action("web")));
    bench.spawn_all();
    assert_eq!(bench.reason("web"), "running; restarted because `db` was replaced");
    let web = bench.run("web");
    assert_eq!(bench.advance(600 * SECOND), [], "once");
    // The next restart has another reason.
    bench.dies(web, 1);
    bench.advance(60 * SECOND);
    bench.spawn_all();
    assert_eq!(bench.reason("web"), "running; the run before exited with code 1");
}

#[test]
fn replicas_that_come_back_together_replace_once() {
    let mut bench = Bench::running(vec![
        program_with("db", |p| p.replicas = Some(2)),
        restart_with("web", "db"),
    ]);
    let web = bench.run("web");
    let processes = vec![name("db:0"), name("db:1")];
    let (first, second) = (bench.run("db:0"), bench.run("db:1"));
    bench.send(Event::Operator(Command::Restart { processes, by: actor() }));
    bench.dies(first, 0);
    bench.spawn_all();
    assert_eq!(bench.state("web"), StateCode::Running);
    bench.dies(second, 0);
    let run = bench.run("db:1");
    assert_eq!(bench.spawned(run), [signal(web, TERM)]);
    bench.dies(web, 0);
    bench.spawn_all();
    assert_eq!(bench.status("web").restarts, 1);
}

#[test]
fn replicas_that_are_replaced_in_turn_replace_once() {
    let db = |command: &str| {
        program_with("db", |p| {
            p.replicas = Some(2);
            p.spawn.argv = vec![command.to_owned()];
        })
    };
    let mut bench = Bench::running(vec![db("old"), restart_with("web", "db")]);
    let (first, second) = (bench.run("db:0"), bench.run("db:1"));
    let new: Programs = [db("new"), restart_with("web", "db")]
        .map(|program| (program.name.clone(), Arc::new(program)))
        .into();
    let except = [(name("db:1"), Arc::new(db("old")))].into();
    bench.send(Event::ConfigureMix(Mix { programs: new.clone(), except }));
    bench.dies(first, 0);
    bench.spawn_all();
    assert_ne!(bench.run("db:0"), first);
    assert_eq!(bench.state("web"), StateCode::Running, "`db:1` is next");
    bench.send(Event::ConfigureMix(Mix::whole(new)));
    assert_eq!(bench.state("web"), StateCode::Running);
    bench.dies(second, 0);
    let run = bench.run("db:1");
    let web = bench.run("web");
    assert_eq!(bench.spawned(run), [signal(web, TERM)]);
    bench.dies(web, 0);
    bench.spawn_all();
    assert_eq!(bench.status("web").restarts, 1);
}

#[test]
fn what_is_stopped_or_ends_is_not_started_for_the_sake_of_another() {
    let mut bench = Bench::running(vec![program("db"), restart_with("web", "db")]);
    let (db, web) = (bench.run("db"), bench.run("web"));
    bench.stop("web");
    bench.dies(web, 0);
    bench.dies(db, 1);
    bench.advance(SECOND);
    bench.spawn_all();
    assert_eq!((bench.state("db"), bench.state("web")), (StateCode::Running, StateCode::Stopped));
    // During a shutdown neither.
    bench.start("web");
    bench.spawn_all();
    let (db, web) = (bench.run("db"), bench.run("web"));
    bench.shutdown();
    bench.dies(web, 0);
    assert!(bench.dies(db, 0).contains(&Action::ShutdownComplete));
}

#[test]
fn a_new_declaration_of_restart_with_replaces_nothing_by_itself() {
    let mut bench = Bench::running(vec![program("db"), program("web")]);
    let db = bench.run("db");
    bench.dies(db, 1);
    bench.advance(SECOND);
    bench.spawn_all();
    let web = bench.run("web");
    assert!(bench.run("db") > web);
    assert_eq!(bench.configure(vec![program("db"), restart_with("web", "db")]), []);
    let db = bench.run("db");
    bench.dies(db, 1);
    bench.advance(60 * SECOND);
    let run = bench.run("db");
    assert_eq!(bench.spawned(run), [signal(web, TERM)]);
}

#[test]
fn a_supervisor_that_was_asleep_gives_every_run_another_chance() {
    let mut bench =
        Bench::running(vec![with_ready("slow", Ready::Notify), with_watchdog("watched")]);
    assert_eq!(bench.advance(3600 * SECOND), [], "nobody could have heard a word");
    let slow = bench.run("slow");
    assert_eq!(bench.advance(5 * SECOND), [signal(slow, TERM)]);
    let watched = bench.run("watched");
    assert_eq!(bench.advance(25 * SECOND).last(), Some(&signal(watched, ABORT)));
}

#[test]
fn a_run_that_became_ready_while_nobody_was_there_is_looked_at_before_it_is_given_up() {
    let mut bench = Bench::running(vec![with_tcp("db")]);
    bench.now = bench.now + TIMEOUT;
    assert_eq!(bench.die_and_restore(), []);
    assert_eq!(bench.advance(4 * SECOND), []);
    bench.ready("db");
    assert_eq!(bench.state("db"), StateCode::Running);
}

#[test]
fn the_next_brain_goes_on_with_the_wait_and_with_a_failure_under_way() {
    let mut bench = Bench::running(vec![with_tcp("db"), restart_with("web", "db")]);
    bench.says("db", Word::Look("connection refused".into()));
    bench.advance(50 * SECOND);
    bench.die_and_restore();
    assert_eq!(bench.advance(9 * SECOND), []);
    let run = bench.run("db");
    assert_eq!(bench.advance(SECOND), [signal(run, TERM)]);
    bench.die_and_restore();
    bench.dies(run, 0);
    assert_eq!(bench.state("db"), StateCode::Backoff);
    assert!(bench.reason("db").contains("connection refused"), "{}", bench.reason("db"));
}

#[test]
fn the_next_brain_replaces_what_the_last_one_had_to() {
    let mut bench = Bench::running(vec![program("db"), restart_with("web", "db")]);
    let (db, web) = (bench.run("db"), bench.run("web"));
    bench.dies(db, 1);
    bench.advance(SECOND);
    // Killed before it heard of the birth.
    let actions = bench.die_and_restore();
    assert_eq!(actions, [signal(web, TERM)]);
    assert_eq!(bench.state("db"), StateCode::Running);
}

#[test]
fn the_next_brain_gives_a_watchdog_its_whole_time_again() {
    let mut bench = Bench::running(vec![with_watchdog("web")]);
    bench.advance(29 * SECOND);
    bench.die_and_restore();
    assert_eq!(bench.advance(29 * SECOND), []);
    assert_eq!(bench.advance(SECOND).len(), 1);
}

#[test]
fn what_is_to_stop_is_stopped_in_order_however_late_its_readiness_is() {
    let mut bench = Bench::running(vec![with_tcp("db"), requires("web", "db")]);
    bench.ready("db");
    bench.spawn_all();
    bench.advance(SECOND);
    assert_eq!(bench.state("web"), StateCode::Running);
    let db = bench.run("db");
    bench.dies(db, 1);
    bench.spawn_all();
    assert_eq!((bench.state("db"), bench.state("web")), (StateCode::Starting, StateCode::Running));
    let (db, web) = (bench.run("db"), bench.run("web"));
    bench.advance(TIMEOUT - SECOND);
    assert_eq!(bench.shutdown(), [signal(web, TERM)]);
    let late = bench.advance(2 * SECOND);
    assert_eq!(late, [], "`db` was stopped before `web` had ended");
    assert!(bench.dies(web, 0).contains(&signal(db, TERM)));
}

#[test]
fn an_end_before_readiness_is_no_success_even_when_nothing_is_tried_again() {
    let mut bench = Bench::running(vec![program_with("job", |p| {
        *p = with_ready("job", Ready::Notify);
        p.lifecycle.restart = RestartPolicy::OnFailure;
    })]);
    let run = bench.run("job");
    bench.exited(run, 0);
    let status = bench.status("job");
    assert_eq!((status.state, status.failure.is_some()), (StateCode::Exited, true));
    assert!(status.reason.starts_with("exited with code 0 before it was ready"), "{status:?}");
}
