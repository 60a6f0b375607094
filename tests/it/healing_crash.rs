//! Deaths in the middle of healing: the next brain goes on, or undoes, and forgets nothing.

use std::fs;
use std::time::Duration;

use crate::harness::{Daemon, Setup, wait_for};
use crate::healing::{answers, start, story, wait_story, web, why};
use crate::readiness::free_port;

fn healed_by(check: &str) -> Daemon {
    start(Setup::new(&web("web", free_port(), "", check)), &["web"])
}

/// Waits until a file is there.
#[track_caller]
fn wait_file(daemon: &Daemon, name: &str) {
    let path = daemon.file(name);
    wait_for(&format!("`{name}`"), || if path.exists() { Ok(()) } else { Err("not there".into()) });
}

fn lines(daemon: &Daemon, name: &str) -> Vec<String> {
    let text = fs::read_to_string(daemon.file(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_command_whose_brain_dies_is_killed_and_not_run_again() {
    let command = "echo begun >> {dir}/begun; sleep 100000";
    let check = format!("heal = [{{ run = ['sh', '-c', '{command}'] }}, 'restart']");
    let daemon = healed_by(&check);
    let run = daemon.process("web").run;
    answers(daemon.dir(), "web", "500 Broken");
    wait_file(&daemon, "begun");
    daemon.kill_brain();
    let sleeps = || daemon.family().values().filter(|it| it.contains("sleep 100000")).count();
    wait_for("the command to be gone", || match sleeps() {
        0 => Ok(()),
        left => Err(format!("{left} left")),
    });
    // Nobody knows what became of it; the checks tell that it has not helped.
    daemon.wait_process("web", "to have another run", |process| process.run > run);
    answers(daemon.dir(), "web", "200 OK");
    let proved = wait_story(&daemon, "web", "verified");
    assert!(proved.contains("was healed by `restart`"), "{proved}");
    assert_eq!(lines(&daemon, "begun"), ["begun"]);
}

#[test]
fn a_verification_goes_on_over_the_death_of_the_brain() {
    let daemon = healed_by("heal = ['restart']");
    answers(daemon.dir(), "web", "500 Broken");
    wait_story(&daemon, "web", "verifying");
    let (run, incident) = (daemon.process("web").run, daemon.process("web").incident);
    daemon.kill_brain();
    let process = daemon.process("web");
    assert_eq!((process.run, process.incident), (run, incident), "{process:?}");
    answers(daemon.dir(), "web", "200 OK");
    let proved = wait_story(&daemon, "web", "verified");
    assert!(proved.contains("was healed by `restart`"), "{proved}");
    let began = story(&daemon, "web").iter().filter(|word| *word == "began").count();
    assert_eq!((began, daemon.process("web").run), (1, run));
}

#[test]
fn a_restart_under_way_is_finished_by_the_next_brain() {
    let port = free_port();
    // Takes its time to stop: the signal does nothing.
    let program = "stop = { signal = 'WINCH', grace = '3s' }\nenvironment = { A = 'b' }";
    let text =
        web("web", port, "", "heal = ['restart']").replace("stop = { grace = '500ms' }", program);
    let daemon = start(Setup::new(&text), &["web"]);
    let before = daemon.process("web");
    answers(daemon.dir(), "web", "500 Broken");
    daemon.wait_state("web", "STOPPING");
    daemon.kill_brain();
    answers(daemon.dir(), "web", "200 OK");
    daemon.wait_process("web", "to have another run", |process| {
        process.run > before.run && process.state == "RUNNING"
    });
    wait_story(&daemon, "web", "verified");
    assert_eq!(story(&daemon, "web").iter().filter(|word| *word == "began").count(), 1);
}

#[test]
fn steps_whose_brain_dies_are_undone() {
    let step = |name: &str| format!("['sh', '-c', 'echo {name} >> {{dir}}/steps']");
    let check = format!(
        "heal = [{{ steps = [{{ run = {}, undo = {} }}, \
         {{ run = ['sh', '-c', 'echo two >> {{dir}}/steps; sleep 100000'], undo = {} }}] }}]",
        step("one"),
        step("back-one"),
        step("back-two"),
    );
    let daemon = healed_by(&check);
    answers(daemon.dir(), "web", "500 Broken");
    wait_for("the second step", || {
        let steps = lines(&daemon, "steps");
        if steps.len() == 2 { Ok(()) } else { Err(format!("{steps:?}")) }
    });
    daemon.kill_brain();
    wait_for("the steps to be undone", || {
        let steps = lines(&daemon, "steps");
        let expected = ["one", "two", "back-two", "back-one"];
        if steps == expected { Ok(()) } else { Err(format!("{steps:?}")) }
    });
    let why = wait_story(&daemon, "web", "not-done");
    assert!(why.contains("the supervisor died during a step"), "{why}");
    answers(daemon.dir(), "web", "200 OK");
    let sleeps = || daemon.family().values().filter(|it| it.contains("sleep 100000")).count();
    assert_eq!(sleeps(), 0, "{:#?}", daemon.family());
}

#[test]
fn a_cool_down_and_a_hold_outlive_the_brain_and_the_daemon() {
    let port = free_port();
    let check = "heal = ['restart', 'restart', 'restart', 'restart']";
    let text = web("web", port, "", check).replace("cooldown = '200ms'", "cooldown = '1h'");
    let mut daemon = start(Setup::new(&text), &["web"]);
    let run = daemon.process("web").run;
    answers(daemon.dir(), "web", "500 Broken");
    let waits = |daemon: &Daemon, words: &str| {
        wait_for(&format!("web to stand at `{words}`"), || {
            let standing = why(daemon, "web").standing.unwrap_or_default();
            if standing.contains(words) { Ok(()) } else { Err(standing) }
        });
    };
    waits(&daemon, "gets its next remedy in");
    daemon.kill_brain();
    waits(&daemon, "gets its next remedy in");
    assert_eq!(daemon.process("web").run, run);
    daemon.ctl_ok(&["hold", "web", "--for", "2h"]);
    daemon.kill_brain();
    waits(&daemon, "is on hold for another 1 h");
    daemon.ctl_ok(&["shutdown", "--yes"]);
    daemon.start_again();
    waits(&daemon, "is on hold for another 1 h");
    let held = why(&daemon, "web").hold.expect("it is on hold");
    assert!(!held.by.is_empty(), "{held:?}");
}

#[test]
fn what_was_shed_and_what_stands_in_are_known_to_the_next_brain() {
    let port = free_port();
    let more = "[program.spare]\ncommand = ['sleep', '100000']\nautostart = false\n\
                start_period = '100ms'\n";
    let check = "heal = [{ fallback = 'spare' }]";
    let setup = Setup::new(&format!("{}{more}", web("web", port, "", check)));
    let daemon = start(setup, &["web"]);
    answers(daemon.dir(), "web", "500 Broken");
    let spare = daemon.wait_state("spare", "RUNNING");
    wait_story(&daemon, "web", "verifying");
    daemon.kill_brain();
    assert_eq!(daemon.process("spare").pid, spare.pid);
    answers(daemon.dir(), "web", "200 OK");
    wait_story(&daemon, "web", "closed");
    daemon.wait_process("spare", "to be stopped", |process| process.pid.is_none());
}

#[test]
fn checks_go_on_over_an_upgrade_of_the_brain() {
    let daemon = healed_by("heal = ['restart']");
    let pid = daemon.process("web").pid;
    for _ in 0..3 {
        daemon.kill_brain();
        std::thread::sleep(Duration::from_millis(10)); // a brain that has hardly begun
    }
    answers(daemon.dir(), "web", "500 Broken");
    daemon.wait_process("web", "to have another run", |process| {
        process.pid.is_some() && process.pid != pid
    });
    answers(daemon.dir(), "web", "200 OK");
    wait_story(&daemon, "web", "verified");
}
