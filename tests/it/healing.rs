//! Health checks that heal: what is noticed, what it is taken for, what is done and what is not.

use std::fs;
use std::path::Path;

use mendd::api::view::{ChecksView, IncidentsView, WhyView, WhysView};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Daemon, Setup, wait_for};
use crate::proc;
use crate::readiness::free_port;

/// The pace of every check here: down after two failures, up after two passes.
pub(crate) const PACE: &str = "interval = '500ms'\ntimeout = '400ms'\nfall = 2\nrise = 2\n\
                               start_timeout = '10s'\ncooldown = '200ms'\nstable = '500ms'\n";

/// A web server that answers with the status in `NAME.status`, and its check.
pub(crate) fn web(name: &str, port: u16, program: &str, check: &str) -> String {
    format!(
        "[program.{name}]\n\
         command = ['{{child}}', 'web', '{port}', '{{dir}}/{name}.status']\n\
         start_period = '100ms'\nstop = {{ grace = '500ms' }}\n{program}\n\
         [[program.{name}.check]]\nname = 'http'\nhttp = 'http://127.0.0.1:{port}/'\n\
         {PACE}{check}\n"
    )
}

/// Says what a web server answers from now on; `wedge` is nothing at all.
pub(crate) fn answers(dir: &Path, name: &str, status: &str) {
    let fresh = dir.join(format!("{name}.status.new"));
    fs::write(&fresh, format!("{status}\n")).expect("a file in the test's directory");
    fs::rename(&fresh, dir.join(format!("{name}.status"))).expect("it can be replaced");
}

/// Starts a daemon whose web servers are well, and waits until their checks say so. There are no
/// others: those wait for a minute until an incident is over.
#[track_caller]
pub(crate) fn start(setup: Setup, names: &[&str]) -> Daemon {
    names.iter().for_each(|name| answers(setup.dir(), name, "200 OK"));
    let daemon = setup.supervisor("default_checks = false").start();
    names.iter().for_each(|name| wait_health(&daemon, name, "up"));
    daemon
}

#[track_caller]
pub(crate) fn wait_health(daemon: &Daemon, name: &str, health: &str) {
    daemon.wait_process(name, &format!("to be {health}"), |process| process.health == health);
}

/// Lets timeouts count however busy the machine is: the daemon sees no pressure.
pub(crate) fn unpressed(setup: Setup) -> Setup {
    if !proc::is_root() {
        return setup;
    }
    let hide = "mount --bind \"$0\" /proc/pressure; exec \"$@\"";
    setup.wrapper(&["unshare", "--mount", "sh", "-c", hide, "{dir}"])
}

pub(crate) fn why(daemon: &Daemon, name: &str) -> WhyView {
    let answer = daemon.http("GET", &format!("/v1/why?name={name}"), None);
    assert_eq!(answer.status, 200, "{answer:?}");
    let whys: WhysView = serde_json::from_str(&answer.body).expect("the reasons");
    whys.whys.into_iter().next().expect("somebody is called so")
}

/// The kinds of entries of the newest incident's story.
pub(crate) fn story(daemon: &Daemon, name: &str) -> Vec<String> {
    let told = why(daemon, name).incident;
    told.map(|told| told.story.into_iter().map(|entry| entry.what).collect()).unwrap_or_default()
}

/// Waits until the newest incident has an entry of this kind; returns its sentence.
#[track_caller]
pub(crate) fn wait_story(daemon: &Daemon, name: &str, what: &str) -> String {
    wait_for(&format!("the story of {name} to have `{what}`"), || {
        let told = why(daemon, name).incident.ok_or("no incident")?;
        let found = told.story.iter().find(|entry| entry.what == what);
        found.map(|entry| entry.sentence.clone()).ok_or_else(|| format!("{:#?}", told.story))
    })
}

/// The word of the cause that the newest incident of a program was taken for.
#[track_caller]
fn cause(daemon: &Daemon, name: &str) -> String {
    wait_for("the incident to have a cause", || {
        let answer = daemon.http("GET", &format!("/v1/incidents?program={name}"), None);
        let list: IncidentsView = serde_json::from_str(&answer.body).expect("incidents");
        let incident = list.incidents.into_iter().next().ok_or("no incident")?;
        incident.cause.map(|cause| cause.word).ok_or_else(|| "no cause".to_owned())
    })
}

fn checks(daemon: &Daemon, names: &str) -> ChecksView {
    let answer = daemon.http("GET", &format!("/v1/checks?{names}"), None);
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[test]
fn a_server_that_answers_badly_is_restarted_and_the_restart_is_proved() {
    let port = free_port();
    let setup = Setup::new(&web("web", port, "", "heal = ['restart']"));
    let daemon = start(setup, &["web"]);
    let before = daemon.process("web");
    assert_eq!((before.health.as_str(), before.incident), ("up", None));
    let mut events = daemon.events(None);
    answers(daemon.dir(), "web", "500 Broken");
    daemon.wait_process("web", "to be restarted", |process| {
        let because = "restarted because check `http` of web failed (incident 1)";
        process.run != before.run && process.reason.contains(because)
    });
    answers(daemon.dir(), "web", "200 OK");
    wait_story(&daemon, "web", "closed");
    let words = story(&daemon, "web");
    let place = |word: &str| words.iter().position(|it| it == word);
    let expected = ["failed", "cause", "began", "verifying", "verified", "recovered", "closed"];
    let places: Vec<_> = expected.iter().map(|word| place(word)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{words:?}");
    assert_eq!(cause(&daemon, "web"), "wrong-answer");
    let told = daemon.ctl_ok(&["why", "web"]).out;
    for sentence in [
        "web: RUNNING",
        "is down: check `http` says answered 500 Internal Server Error",
        "gets the remedy `restart`",
        "was healed by `restart`",
        "the incident is over: one remedy healed it",
    ] {
        assert!(told.contains(sentence), "no {sentence:?} in {told}");
    }
    let mut kinds = std::collections::BTreeSet::new();
    while kinds.len() < 2 {
        let event = events.next().expect("the stream goes on");
        kinds.extend(["check", "incident"].into_iter().find(|kind| event.kind == *kind));
    }
}

#[test]
fn a_server_that_accepts_and_never_answers_is_called_wedged() {
    let port = free_port();
    let setup = unpressed(Setup::new(&web(
        "web",
        port,
        "reload_signal = 'HUP'",
        "heal = ['reload', 'restart']",
    )));
    let daemon = start(setup, &["web"]);
    let before = daemon.process("web");
    answers(daemon.dir(), "web", "wedge");
    wait_story(&daemon, "web", "began");
    answers(daemon.dir(), "web", "200 OK");
    assert_eq!(cause(&daemon, "web"), "wedged");
    wait_story(&daemon, "web", "verified");
    // The reload, which leaves the process as it is, was passed over.
    assert!(daemon.process("web").run > before.run);
    assert_eq!(story(&daemon, "web").iter().filter(|word| *word == "began").count(), 1);
}

#[test]
fn a_stopped_server_is_found_frozen_and_continued() {
    let port = free_port();
    let check = "heal = ['restart', 'signal:CONT']";
    let daemon = start(unpressed(Setup::new(&web("web", port, "", check))), &["web"]);
    let before = daemon.process("web");
    proc::send(before.pid.expect("it runs"), Signal::SIGSTOP);
    let proved = wait_story(&daemon, "web", "verified");
    assert!(proved.contains("was healed by `signal`"), "{proved}");
    assert_eq!(cause(&daemon, "web"), "frozen");
    assert_eq!(daemon.process("web").pid, before.pid, "it was not replaced");
}

#[test]
fn a_server_that_is_killed_comes_back_and_its_end_is_explained() {
    let port = free_port();
    let daemon = start(Setup::new(&web("web", port, "", "heal = ['restart']")), &["web"]);
    let before = daemon.process("web");
    proc::send(before.pid.expect("it runs"), Signal::SIGKILL);
    let how = wait_story(&daemon, "web", "ended");
    assert!(how.contains("killed by SIGKILL"), "{how}");
    let over = wait_story(&daemon, "web", "closed");
    assert!(over.contains("came back without a remedy"), "{over}");
    assert_eq!(cause(&daemon, "web"), "killed");
    assert!(!story(&daemon, "web").contains(&"began".to_owned()));
}

#[test]
fn what_mend_ends_itself_is_not_told_as_killed_from_outside() {
    let daemon = Daemon::start(
        "[program.late]\ncommand = ['sleep', '100000']\nready = 'notify'\nstart_timeout = '300ms'\n\
         backoff = { initial = '1h' }\n\
         [program.mute]\ncommand = ['sleep', '100000']\nstart_period = 0\nwatchdog = '300ms'\n\
         backoff = { initial = '1h' }\n",
    );
    for (name, why) in [("late", "not ready after"), ("mute", "has not fed its watchdog")] {
        assert_eq!(cause(&daemon, name), "wedged", "{name}");
        let told = daemon.ctl_ok(&["why", name]).out;
        assert!(told.contains("was ended by Mend") && told.contains(why), "{told}");
        assert!(!told.contains("outside of Mend"), "{told}");
    }
}

#[test]
fn a_command_that_is_not_there_is_named_as_the_cause() {
    let daemon = Daemon::start("[program.web]\ncommand = ['/nowhere/web']\n");
    daemon.wait_state("web", "FATAL");
    assert_eq!(cause(&daemon, "web"), "command-missing");
    let told = daemon.ctl_ok(&["why", "web"]).out;
    assert!(told.contains("could not be started"), "{told}");
}

#[test]
fn nothing_is_healed_on_hold_and_it_is_when_the_hold_is_over() {
    let port = free_port();
    let daemon = start(Setup::new(&web("web", port, "", "heal = ['restart']")), &["web"]);
    let run = daemon.process("web").run;
    let held = daemon.ctl_ok(&["hold", "web", "--for", "1h", "--reason", "moves"]).out;
    assert_eq!(held, "web is left alone for 1h\n");
    answers(daemon.dir(), "web", "500 Broken");
    wait_for("the check to be seen failing", || {
        let check = checks(&daemon, "name=web/http").checks.remove(0);
        if check.fails >= 2 { Ok(()) } else { Err(format!("{check:?}")) }
    });
    let process = daemon.process("web");
    assert_eq!((process.health.as_str(), process.run), ("held", run));
    let told = daemon.ctl_ok(&["why", "web"]).out;
    assert!(told.contains("web is on hold for another"), "{told}");
    assert!(told.contains("by root: moves") || told.contains(": moves"), "{told}");
    daemon.ctl_ok(&["release", "web"]);
    daemon.wait_process("web", "to have another run", |process| process.run > run);
    answers(daemon.dir(), "web", "200 OK");
    wait_story(&daemon, "web", "verified");
}

#[test]
fn what_an_operator_has_stopped_is_left_alone() {
    let port = free_port();
    let daemon = start(Setup::new(&web("web", port, "", "heal = ['restart']")), &["web"]);
    answers(daemon.dir(), "web", "500 Broken");
    wait_story(&daemon, "web", "failed");
    daemon.ctl_ok(&["stop", "web"]);
    let over = wait_story(&daemon, "web", "closed");
    assert!(over.contains("it was stopped"), "{over}");
    let process = daemon.process("web");
    assert_eq!((process.state.as_str(), process.health.as_str()), ("STOPPED", "none"));
    let run = daemon.ctl(&["check", "run", "web/http"]);
    assert_eq!(run.code, 8, "{run:#?}");
    assert!(run.out.contains("is not run while web does not"), "{}", run.out);
    let heal = daemon.ctl(&["heal", "web"]);
    assert_eq!(heal.code, 1, "{heal:#?}");
    assert!(heal.err.contains("nothing of web is down"), "{}", heal.err);
}

#[test]
fn a_check_that_observes_says_what_it_would_do_and_does_nothing() {
    let port = free_port();
    let check = "mode = 'observe'\nheal = ['restart', 'quarantine']";
    let daemon = start(Setup::new(&web("web", port, "", check)), &["web"]);
    let run = daemon.process("web").run;
    answers(daemon.dir(), "web", "500 Broken");
    let would = wait_story(&daemon, "web", "would");
    assert!(would.contains("would get the remedy `restart`"), "{would}");
    let quarantined = wait_story(&daemon, "web", "quarantined");
    assert!(quarantined.contains("one more attempt comes in"), "{quarantined}");
    assert_eq!(daemon.process("web").run, run);
}

#[test]
fn whoever_requires_what_is_down_is_not_healed_before_it() {
    let (db, front) = (free_port(), free_port());
    let programs = format!(
        "{}{}",
        web("db", db, "", ""),
        web("web", front, "requires = ['db']", "heal = ['restart']")
    );
    let daemon = start(Setup::new(&programs), &["db", "web"]);
    let run = daemon.process("web").run;
    answers(daemon.dir(), "db", "500 Broken");
    wait_health(&daemon, "db", "down");
    answers(daemon.dir(), "web", "500 Broken");
    wait_for("web to wait for db", || {
        let why = why(&daemon, "web");
        let standing = why.standing.clone().unwrap_or_default();
        if standing.contains("waits for `db`") { Ok(()) } else { Err(format!("{why:?}")) }
    });
    let told = daemon.ctl_ok(&["why", "web"]).out;
    assert!(told.contains("it requires db, which is down"), "{told}");
    assert_eq!(cause(&daemon, "web"), "dependency-down");
    assert_eq!(daemon.process("web").run, run);
    answers(daemon.dir(), "db", "200 OK");
    answers(daemon.dir(), "web", "200 OK");
    wait_story(&daemon, "web", "closed");
    assert_eq!(daemon.process("web").run, run, "it came back by itself");
}

#[test]
fn checks_are_listed_shown_and_run_on_demand() {
    let port = free_port();
    let setup = Setup::new(&web("web", port, "", "heal = ['restart']"));
    answers(setup.dir(), "web", "200 OK");
    let daemon = setup.start();
    wait_health(&daemon, "web", "up");
    let list = daemon.ctl_ok(&["check", "list", "web"]).out;
    assert!(list.contains("web/http  up"), "{list}");
    let show = daemon.ctl_ok(&["check", "show", "web/http"]).out;
    assert!(show.contains(&format!("asks: http://127.0.0.1:{port}/ (http)")), "{show}");
    assert!(show.contains("heals: [restart]"), "{show}");
    let run = daemon.ctl_ok(&["check", "run", "web/http"]).out;
    assert!(run.starts_with("web/http: pass, answered 200 OK"), "{run}");
    answers(daemon.dir(), "web", "503 Busy");
    let run = daemon.ctl(&["check", "run", "web/http"]);
    assert_eq!(run.code, 8, "{run:#?}");
    assert!(run.out.starts_with("web/http: fail, answered 503 Service"), "{}", run.out);
    let host = daemon.ctl_ok(&["check", "run", "host"]).out;
    assert!(host.contains("host/memory: pass"), "{host}");
    let unknown = daemon.ctl(&["check", "show", "web/htp"]);
    assert_eq!(unknown.code, 2, "{unknown:#?}");
    assert!(unknown.err.contains("did you mean `web/http`?"), "{}", unknown.err);
    let json: Value = serde_json::from_str(&daemon.ctl(&["--json", "check", "list"]).out)
        .expect("JSON on stdout");
    assert_eq!(json["schema"], 1);
    let words = daemon.ctl_ok(&["__complete", "checks"]).out;
    assert!(words.lines().any(|word| word == "web/http"), "{words}");
}

#[test]
fn a_change_of_checks_restarts_nothing_and_takes_effect() {
    let port = free_port();
    let daemon = start(Setup::new(&web("web", port, "", "heal = ['restart']")), &["web"]);
    let pid = daemon.process("web").pid;
    let more = format!(
        "{}[[program.web.check]]\nname = 'port'\ntcp = '127.0.0.1:{port}'\n{PACE}",
        web("web", port, "", "")
    );
    daemon.write_programs(&more);
    daemon.ctl_ok(&["reload"]);
    wait_for("the new check to pass", || {
        let check = checks(&daemon, "name=web/port").checks.remove(0);
        if check.state == "up" { Ok(()) } else { Err(format!("{check:?}")) }
    });
    answers(daemon.dir(), "web", "500 Broken");
    wait_health(&daemon, "web", "down");
    let standing = why(&daemon, "web").standing.unwrap_or_default();
    assert!(standing.contains("nothing is configured to heal it"), "{standing}");
    assert_eq!(daemon.process("web").pid, pid);
}

#[test]
fn signs_of_life_are_output_and_words() {
    let check = |name: &str, what: &str| {
        format!("[[program.worker.check]]\nname = '{name}'\n{what}\n{PACE}")
    };
    let programs = format!(
        "[program.worker]\ncommand = ['{{child}}', 'obey', '{{dir}}/worker.orders']\n\
         start_period = '100ms'\nwatchdog = '1h'\n{}{}{}",
        check("talk", "silence = '2s'"),
        check("errors", "log = { pattern = '^ERROR', fail = 3, within = '1m' }"),
        check("beat", "heartbeat = '2s'"),
    );
    let daemon = Daemon::start(&programs);
    let state = |name: &str, state: &str| {
        wait_for(&format!("{name} to be {state}"), || {
            let check = checks(&daemon, &format!("name=worker/{name}")).checks.remove(0);
            if check.state == state { Ok(check) } else { Err(format!("{check:?}")) }
        })
    };
    let order = |text: &str| crate::readiness::order(&daemon, "worker", text);
    for name in ["talk", "errors", "beat"] {
        state(name, "up");
    }
    let silent = state("talk", "down");
    assert!(silent.detail.is_some_and(|detail| detail.contains("no output for")));
    state("beat", "down");
    order("notify WATCHDOG=1");
    order("print ERROR one\\nERROR two\\nERROR three\\n");
    let errors = state("errors", "down");
    assert!(errors.detail.is_some_and(|detail| detail.contains("match `^ERROR`")));
    for _ in 0..4 {
        order("notify WATCHDOG=1");
        order("print still here\\n");
    }
    wait_for("talk and beat to be seen well", || {
        order("notify WATCHDOG=1");
        order("print still here\\n");
        let states = ["talk", "beat"]
            .map(|name| checks(&daemon, &format!("name=worker/{name}")).checks.remove(0).state);
        if states.iter().all(|state| state == "up") { Ok(()) } else { Err(format!("{states:?}")) }
    });
}

#[test]
fn the_mode_of_the_host_sheds_what_matters_less_and_brings_it_back() {
    let port = free_port();
    let programs = format!(
        "{}[program.report]\ncommand = ['sleep', '100000']\nseverity = 'minor'\npriority = 900\n",
        web("web", port, "severity = 'critical'", "")
    );
    let mode = "mode = { enter = '100ms', leave = '100ms', shed_emergency = 500, \
                on_change = ['sh', '-c', 'echo $MEND_MODE_BEFORE $MEND_MODE >> {dir}/modes'] }";
    let setup = Setup::new(&programs);
    let dir = setup.dir().display().to_string();
    let daemon = start(setup.supervisor(&mode.replace("{dir}", &dir)), &["web"]);
    daemon.wait_state("report", "RUNNING");
    answers(daemon.dir(), "web", "500 Broken");
    daemon.wait_until("an emergency", |status| status.mode == "emergency");
    let shed = daemon.wait_process("report", "to be shed", |process| process.pid.is_none());
    assert!(shed.reason.contains("kept down by mend: the host is EMERGENCY"), "{shed:?}");
    assert_eq!((shed.goal.as_str(), shed.goal_by), ("up", None));
    answers(daemon.dir(), "web", "200 OK");
    daemon.wait_until("all to be normal", |status| status.mode == "normal");
    daemon.wait_state("report", "RUNNING");
    wait_for("the command to have been told", || {
        let told = fs::read_to_string(daemon.file("modes")).unwrap_or_default();
        let expected = "NORMAL EMERGENCY\nEMERGENCY NORMAL\n";
        if told == expected { Ok(()) } else { Err(told) }
    });
}
