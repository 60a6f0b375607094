//! Every remedy, on real processes: what it does, how it ends, and that nothing of it is left.

use std::fs;

use crate::harness::{Daemon, Setup, wait_for};
use crate::healing::{PACE, answers, start, story, wait_health, wait_story, web, why};
use crate::readiness::free_port;

/// A web server whose check heals like this.
fn healed_by(heal: &str, program: &str, more: &str) -> Daemon {
    let check = format!("heal = {heal}");
    let setup = Setup::new(&format!("{}{more}", web("web", free_port(), program, &check)));
    start(setup, &["web"])
}

fn text(daemon: &Daemon, name: &str) -> String {
    fs::read_to_string(daemon.file(name)).unwrap_or_default()
}

#[track_caller]
fn wait_text(daemon: &Daemon, name: &str, wanted: &str) {
    wait_for(&format!("`{name}` to be {wanted:?}"), || {
        let text = text(daemon, name);
        if text == wanted { Ok(()) } else { Err(format!("{text:?}")) }
    });
}

#[test]
fn a_command_learns_of_the_incident_and_heals() {
    let cure = "echo '200 OK' > {dir}/web.status; \
                echo $MEND_TARGET $MEND_CHECK $MEND_CAUSE $MEND_PROCESS $OWN ${MEND_RUN:-none} \
                > {dir}/seen; test $MEND_INCIDENT -ge 1 && kill -0 $MEND_PID";
    let daemon = healed_by(
        &format!("[{{ run = ['sh', '-c', \"{cure}\"] }}]"),
        "environment = { OWN = 'mine' }",
        "",
    );
    let run = daemon.process("web").run;
    answers(daemon.dir(), "web", "500 Broken");
    let proved = wait_story(&daemon, "web", "verified");
    assert!(proved.contains("was healed by `run`"), "{proved}");
    wait_text(&daemon, "seen", "web http wrong-answer web mine none\n");
    assert_eq!(daemon.process("web").run, run);
}

#[test]
fn a_command_that_fails_leads_to_the_next_rung_with_its_last_words() {
    let daemon =
        healed_by("[{ run = ['sh', '-c', 'echo nothing to unwedge; exit 3'] }, 'restart']", "", "");
    let run = daemon.process("web").run;
    answers(daemon.dir(), "web", "500 Broken");
    let why = wait_story(&daemon, "web", "not-done");
    assert!(why.contains("exited with code 3: nothing to unwedge"), "{why}");
    daemon.wait_process("web", "to have another run", |process| process.run > run);
    answers(daemon.dir(), "web", "200 OK");
    wait_story(&daemon, "web", "verified");
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
    let command = "sleep 100000 & setsid sleep 100000 & echo $! > {dir}/child; wait";
    let daemon = healed_by(
        &format!("[{{ run = ['sh', '-c', '{command}'], timeout = '1s' }}, 'restart']"),
        "",
        "",
    );
    answers(daemon.dir(), "web", "500 Broken");
    let why = wait_story(&daemon, "web", "not-done");
    assert!(why.contains("took longer than 1 s"), "{why}");
    answers(daemon.dir(), "web", "200 OK");
    let sleeps = || daemon.family().values().filter(|it| it.contains("sleep")).count();
    wait_for("nothing of the command to be left", || match sleeps() {
        0 => Ok(()),
        left => Err(format!("{left} left: {:#?}", daemon.family())),
    });
}

#[test]
fn steps_are_undone_in_reverse_when_one_fails() {
    let step = |name: &str| format!("['sh', '-c', 'echo {name} >> {{dir}}/steps']");
    let steps = format!(
        "[{{ steps = [{{ run = {}, undo = {} }}, {{ run = {}, undo = {} }}, \
         {{ run = ['false'], undo = {} }}] }}]",
        step("one"),
        step("back-one"),
        step("two"),
        step("back-two"),
        step("never"),
    );
    let daemon = healed_by(&steps, "", "");
    answers(daemon.dir(), "web", "500 Broken");
    wait_story(&daemon, "web", "undone");
    wait_text(&daemon, "steps", "one\ntwo\nback-two\nback-one\n");
    let why = wait_story(&daemon, "web", "step-failed");
    assert!(why.contains("step 3 failed: exited with code 1"), "{why}");
    answers(daemon.dir(), "web", "200 OK");
}

#[test]
fn a_clean_restart_kills_at_once_and_removes_what_is_stale() {
    let port = free_port();
    // Ends for no signal but SIGKILL, and does not start where its lock is.
    let command = format!(
        "trap '' TERM; test ! -e {{dir}}/lock || exit 7; touch {{dir}}/lock; \
         {{child}} web {port} {{dir}}/web.status & while :; do wait; done"
    );
    let programs = format!(
        "[program.web]\ncommand = ['sh', '-c', \"{command}\"]\nstart_period = '100ms'\n\
         stop = {{ grace = '1h' }}\nstale_files = ['{{dir}}/lock', '{{dir}}/never-there']\n\
         [[program.web.check]]\nname = 'http'\nhttp = 'http://127.0.0.1:{port}/'\n{PACE}\
         heal = ['clean-restart']\n"
    );
    let daemon = start(Setup::new(&programs), &["web"]);
    let run = daemon.process("web").run;
    answers(daemon.dir(), "web", "500 Broken");
    wait_story(&daemon, "web", "began");
    answers(daemon.dir(), "web", "200 OK");
    wait_story(&daemon, "web", "verified");
    let process = daemon.process("web");
    assert_eq!((process.run > run, process.restarts), (true, 1), "{process:?}");
    // Its own stop would take an hour.
    daemon.write_programs(&programs.replace("grace = '1h'", "grace = '100ms'"));
    daemon.ctl_ok(&["reload"]);
}

#[test]
fn a_group_is_restarted_in_its_order() {
    let node = |name: &str, more: &str| {
        format!(
            "[program.{name}]\ncommand = ['{{child}}', 'node', '{{dir}}/order', '{name}', '0']\n\
             ready = 'notify'\n{more}\n"
        )
    };
    let more = format!(
        "{}{}[group.site]\nprograms = ['web', 'cache', 'front']\n",
        node("cache", ""),
        node("front", "requires = ['web', 'cache']")
    );
    let daemon = healed_by("['restart-group']", "requires = ['cache']", &more);
    daemon.wait_state("front", "RUNNING");
    let runs = || ["web", "cache", "front"].map(|name| daemon.process(name).run);
    let before = runs();
    answers(daemon.dir(), "web", "500 Broken");
    wait_story(&daemon, "web", "verifying");
    answers(daemon.dir(), "web", "200 OK");
    wait_story(&daemon, "web", "verified");
    let after = runs();
    assert!(
        before.iter().zip(&after).all(|(before, after)| before < after),
        "{before:?} {after:?}"
    );
    let order = text(&daemon, "order");
    let place = |word: &str| order.find(word).unwrap_or_else(|| panic!("no {word}: {order}"));
    assert!(place("stop front") < place("stop cache"), "{order}");
}

#[test]
fn a_signal_is_enough_where_it_helps() {
    let port = free_port();
    let command = format!(
        "trap 'echo 200 OK > {{dir}}/web.status' HUP; {{child}} web {port} {{dir}}/web.status & \
         while :; do wait; done"
    );
    let programs = format!(
        "[program.web]\ncommand = ['sh', '-c', \"{command}\"]\nstart_period = '100ms'\n\
         reload_signal = 'HUP'\n\
         [[program.web.check]]\nname = 'http'\nhttp = 'http://127.0.0.1:{port}/'\n{PACE}\
         heal = ['reload', 'restart']\n"
    );
    let daemon = start(Setup::new(&programs), &["web"]);
    let run = daemon.process("web").run;
    answers(daemon.dir(), "web", "500 Broken");
    let proved = wait_story(&daemon, "web", "verified");
    assert!(proved.contains("was healed by `reload`"), "{proved}");
    assert_eq!(daemon.process("web").run, run);
}

#[test]
fn a_standby_runs_only_while_it_is_needed() {
    let more = "[program.spare]\ncommand = ['sleep', '100000']\nautostart = false\n\
                start_period = '100ms'\n";
    let daemon = healed_by("[{ fallback = 'spare' }]", "", more);
    assert_eq!(daemon.process("spare").state, "STOPPED");
    answers(daemon.dir(), "web", "500 Broken");
    let spare = daemon.wait_state("spare", "RUNNING");
    assert_eq!(spare.goal_by.as_deref(), Some("mend"), "{spare:?}");
    wait_story(&daemon, "web", "verifying");
    answers(daemon.dir(), "web", "200 OK");
    wait_story(&daemon, "web", "closed");
    let spare = daemon.wait_process("spare", "to be stopped", |process| process.pid.is_none());
    assert!(spare.reason.contains("stopped by mend: web is well again"), "{spare:?}");
}

#[test]
fn a_configuration_that_made_it_ill_is_taken_back() {
    let port = free_port();
    let with = |status: &str| {
        format!(
            "[program.web]\ncommand = ['{{child}}', 'web', '{port}', '{{dir}}/{status}.status']\n\
             start_period = '100ms'\nstop = {{ grace = '500ms' }}\n\
             [[program.web.check]]\nname = 'http'\nhttp = 'http://127.0.0.1:{port}/'\n{PACE}\
             heal = ['rollback']\n"
        )
    };
    let setup = Setup::new(&with("web"));
    answers(setup.dir(), "new", "500 Broken");
    let daemon = start(setup, &["web"]);
    daemon.write_programs(&with("new"));
    daemon.ctl_ok(&["apply", "--yes"]);
    let proved = wait_story(&daemon, "web", "verified");
    assert!(proved.contains("was healed by `rollback`"), "{proved}");
    let history = daemon.ctl_ok(&["config", "history"]).out;
    assert!(history.contains("rollback to 1 by mend"), "{history}");
    assert!(daemon.process("web").command.iter().any(|word| word.ends_with("web.status")));
}

#[test]
fn past_the_last_rung_it_is_left_in_quarantine_and_people_are_told() {
    let daemon = healed_by("['restart', 'quarantine']", "", "");
    let mut events = daemon.events(None);
    answers(daemon.dir(), "web", "500 Broken");
    let quarantined = wait_story(&daemon, "web", "quarantined");
    assert!(quarantined.contains("somebody has to look"), "{quarantined}");
    let mut alerts = std::collections::BTreeSet::new();
    while !alerts.contains("quarantined") {
        let event = events.next().expect("the stream goes on");
        if event.kind == "alert" {
            alerts.insert(event.data["what"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert!(alerts.contains("remedy-failed"), "{alerts:?}");
    let standing = why(&daemon, "web").standing.unwrap_or_default();
    assert!(standing.contains("is tried again in"), "{standing}");
    let run = daemon.process("web").run;
    // An operator may choose the rung, and all brakes still hold.
    let heal = daemon.ctl_ok(&["heal", "web", "--rung", "1", "--reason", "again"]).out;
    assert!(heal.starts_with("web "), "{heal}");
    daemon.wait_process("web", "to have another run", |process| process.run > run);
    answers(daemon.dir(), "web", "200 OK");
    wait_health(&daemon, "web", "up");
    let none = daemon.ctl(&["heal", "web", "--rung", "9"]);
    assert_eq!(none.code, 1, "{none:#?}");
}

#[test]
fn the_host_is_healed_by_commands() {
    let setup = Setup::new(&format!(
        "[check.flag]\nexec = ['sh', '-c', 'test -e {{dir}}/flag || exit 2']\n{PACE}\
         heal = [{{ run = ['sh', '-c', 'echo $MEND_TARGET > {{dir}}/flag'] }}]\n"
    ));
    fs::write(setup.dir().join("flag"), "").expect("a flag");
    let daemon = setup.start();
    wait_for("the flag to be seen", || {
        let check = why(&daemon, "host").checks.into_iter().find(|it| it.check == "flag");
        let state = check.map(|check| check.state);
        if state.as_deref() == Some("up") { Ok(()) } else { Err(format!("{state:?}")) }
    });
    fs::remove_file(daemon.file("flag")).expect("the flag is there");
    wait_story(&daemon, "host", "verified");
    wait_text(&daemon, "flag", "host\n");
    assert!(story(&daemon, "host").contains(&"cause".to_owned()));
}
