//! An apply takes effect as a whole, or what was before comes back.

use std::collections::BTreeMap;
use std::fs;

use mendd::api::view::{ApplyView, GenerationsView, PlanView};

use crate::harness::{Daemon, Setup, wait_for};

fn program(name: &str, more: &str) -> String {
    format!("[program.{name}]\ncommand = ['sleep', '1000']\nstart_period = '100ms'\n{more}\n")
}

/// Says something, and then exits before it counts as running.
fn broken(name: &str) -> String {
    format!(
        "[program.{name}]\ncommand = 'echo no such port; exit 3'\nshell = true\n\
         start_period = 5\nenvironment = {{ V = '2' }}\n"
    )
}

pub(crate) fn generations(daemon: &Daemon) -> GenerationsView {
    let answer = daemon.http("GET", "/v1/generations", None);
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn outcomes(daemon: &Daemon) -> Vec<String> {
    generations(daemon).generations.into_iter().map(|it| it.outcome).collect()
}

fn pids(daemon: &Daemon) -> BTreeMap<String, Option<u32>> {
    daemon.status().programs.into_iter().map(|it| (it.name, it.pid)).collect()
}

#[test]
fn a_new_requirement_that_somebody_has_stopped_is_refused_before_it_stops_what_runs() {
    let daemon = Daemon::start(&[program("db", ""), program("web", "")].concat());
    let web = daemon.pid("web");
    daemon.pid("db");
    daemon.ctl_ok(&["stop", "db"]);
    daemon.write_programs(&[program("db", ""), program("web", "requires = ['db']")].concat());
    let name = daemon.process("db").goal_by.expect("somebody stopped it");
    let expected = format!(
        "`web` runs and would be stopped: it requires `db`, stopped by {name}; start that first, \
         or stop `web` yourself"
    );
    let plan = daemon.ctl(&["plan"]);
    assert!(format!("{}{}", plan.out, plan.err).contains(&expected), "{plan:#?}");
    let ran = daemon.ctl(&["apply", "--yes"]);
    assert_ne!(ran.code, 0, "{ran:#?}");
    assert!(format!("{}{}", ran.out, ran.err).contains(&expected), "{ran:#?}");
    assert_eq!(daemon.pid("web"), web);
    daemon.ctl_ok(&["start", "db"]);
    let ran = daemon.ctl_ok(&["apply", "--yes"]);
    assert_eq!(daemon.pid("web"), web, "{ran:#?}");
}

#[test]
fn the_last_output_of_what_failed_is_not_that_of_what_came_back() {
    let says = |what: &str, then: &str| {
        format!("[program.a]\ncommand = 'echo {what}; {then}'\nshell = true\nstart_period = '1s'\n")
    };
    let daemon = Daemon::start(&says("good morning", "exec sleep 1000"));
    daemon.pid("a");
    daemon.write_programs(&says("no such port", "exit 3"));
    let ran = daemon.ctl(&["apply", "--yes"]);
    let text = format!("{}{}", ran.out, ran.err);
    assert!(text.contains("no such port"), "{ran:#?}");
    let after = text.rsplit("no such port").next().unwrap_or_default();
    assert!(!after.contains("good morning"), "{ran:#?}");
    daemon.pid("a");
}

#[test]
fn a_plan_says_what_would_happen_and_why_and_changes_nothing() {
    let text = [program("a", "environment = { TOKEN = 'sesame' }"), program("gone", "")].concat();
    let daemon = Daemon::start(&text);
    daemon.pid("a");
    let ran = daemon.ctl(&["plan"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "nothing would change\n"), "{ran:#?}");
    let before = pids(&daemon);
    let text = [
        program("a", "environment = { TOKEN = 'changed' }\nlogs = { keep = 3 }"),
        program("b", ""),
    ];
    daemon.write_programs(&text.concat());
    let ran = daemon.ctl(&["plan"]);
    assert_eq!(ran.code, 10, "{ran:#?}");
    for word in ["! a: restarts", "environment.TOKEN: changed", "logs.keep", "+ b", "- gone"] {
        assert!(ran.out.contains(word), "no {word:?} in {ran:#?}");
    }
    let json = daemon.ctl(&["plan", "--json"]);
    let view: PlanView = serde_json::from_str(&json.out).expect("a PlanView");
    assert_eq!((json.code, view.changes), (10, true));
    for secret in ["sesame", "'changed'", "\"changed\""] {
        assert!(!format!("{ran:?}{json:?}").contains(secret), "{secret} is told: {ran:#?}");
    }
    daemon.write_programs("[program.a]\ncommand = ['x']\nprioritty = 3\n");
    let ran = daemon.ctl(&["plan"]);
    assert_eq!(ran.code, 78, "{ran:#?}");
    assert!(ran.err.contains("prioritty"), "{ran:#?}");
    assert_eq!(pids(&daemon), before);
}

#[test]
fn a_good_apply_is_recorded_with_who_and_why() {
    let daemon = Daemon::start(&[program("a", ""), program("same", "")].concat());
    let (a, same) = (daemon.pid("a"), daemon.pid("same"));
    daemon.write_programs(&[program("a", "nice = 1"), program("same", "")].concat());
    let ran = daemon.ctl(&["apply"]);
    assert_eq!(ran.code, 2, "nobody can be asked: {ran:#?}");
    let ran = daemon.ctl_ok(&["apply", "--yes", "--reason", "to be nice"]);
    assert!(
        ran.out.contains("generation 2 is applied") && ran.out.contains("restarts a"),
        "{ran:#?}"
    );
    assert!(ran.err.contains("starting a"), "{ran:#?}");
    assert_eq!(daemon.process("a").state, "RUNNING", "it ended before it ran");
    assert_ne!(daemon.pid("a"), a);
    assert_eq!(daemon.pid("same"), same);
    let history = generations(&daemon);
    let newest = history.generations.last().expect("two generations");
    assert_eq!((history.current, newest.outcome.as_str()), (Some(2), "applied"));
    assert_eq!(newest.reason.as_deref(), Some("to be nice"));
    assert!(newest.uid.is_some(), "{newest:#?}");
    let ran = daemon.ctl_ok(&["config", "history"]);
    assert!(ran.out.contains("*   2") && ran.out.contains("reason: to be nice"), "{ran:#?}");
    assert_eq!(daemon.ctl(&["config", "diff", "1", "2"]).code, 10);
    let ran = daemon.ctl_ok(&["apply", "--yes"]);
    assert_eq!(ran.out, "nothing changed\n");
}

#[test]
fn what_does_not_run_is_rolled_back_with_everything_else() {
    let text = [program("a", ""), program("gone", ""), program("web", "replicas = 3")].concat();
    let daemon = Daemon::start(&text);
    daemon.wait_until("all run", |s| s.programs.iter().all(|p| p.state == "RUNNING"));
    let before = pids(&daemon);
    daemon.ctl_ok(&["stop", "gone", "--reason", "for a while"]);
    let text = [program("a", "nice = 1"), broken("new"), program("web", "replicas = 3\nnice = 1")];
    daemon.write_programs(&text.concat());
    let ran = daemon.ctl(&["apply", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    for word in ["rolled back", "`new` does not run", "exited with code 3", "no such port"] {
        assert!(ran.err.contains(word), "no {word:?} in {ran:#?}");
    }
    let status = daemon.wait_until("the old ones run", |s| {
        let is_back =
            |name: &str| s.programs.iter().any(|p| p.name == name && p.state == "RUNNING");
        s.programs.len() == 5 && ["a", "web:0", "web:1", "web:2"].into_iter().all(is_back)
    });
    let gone = daemon.process("gone");
    assert_eq!(
        (gone.state.as_str(), gone.goal_reason.as_deref()),
        ("STOPPED", Some("for a while"))
    );
    assert!(status.programs.iter().all(|p| p.name != "new"), "{status:#?}");
    // Replicas whose turn had not come were never touched.
    assert_eq!(daemon.process("web:2").pid, before["web:2"]);
    assert_eq!(outcomes(&daemon), ["applied", "rolled-back"]);
    daemon.wait_until("the status to say so", |s| {
        s.daemon.warnings.iter().any(|it| it.contains("given up") && it.contains("generation 2"))
    });
}

#[test]
fn what_was_rolled_back_does_not_come_back_with_a_start_until_the_file_changes() {
    let mut daemon = Daemon::start(&program("a", ""));
    daemon.pid("a");
    daemon.write_programs(&[program("a", "nice = 1"), broken("new")].concat());
    assert_eq!(daemon.ctl(&["apply", "--yes"]).code, 1);
    let pid = daemon.pid("a");
    let only_a = |daemon: &Daemon, what: &str| {
        daemon.wait_until(what, |s| {
            s.programs.len() == 1 && s.daemon.warnings.iter().any(|it| it.contains("generation 2"))
        });
    };
    daemon.kill_both();
    daemon.start_again_as_it_is();
    only_a(&daemon, "the old configuration after a crash");
    assert_eq!(daemon.pid("a"), pid);
    // An orderly end leaves nothing behind but the state directory, as a reboot does.
    daemon.ctl_ok(&["shutdown", "--yes"]);
    daemon.start_again_as_it_is();
    only_a(&daemon, "the old configuration after a cold start");
    assert!(daemon.daemon_log().contains("starting with generation 1"));
    // The operator insists.
    daemon.ctl_ok(&["reload"]);
    daemon.wait_until("the new program", |s| s.programs.iter().any(|p| p.name == "new"));
    daemon.ctl_ok(&["shutdown", "--yes"]);
    daemon.start_again_as_it_is();
    daemon.wait_until("the new program", |s| s.programs.iter().any(|p| p.name == "new"));
}

#[test]
fn going_back_is_an_apply_of_an_earlier_generation() {
    let mut daemon = Daemon::start(&program("a", "nice = 1"));
    daemon.pid("a");
    let ran = daemon.ctl(&["apply", "--rollback", "--yes"]);
    assert_ne!(ran.code, 0, "{ran:#?}");
    assert!(ran.err.contains("no earlier generation"), "{ran:#?}");
    for nice in ["2", "3"] {
        daemon.write_programs(&program("a", &format!("nice = {nice}")));
        daemon.ctl_ok(&["apply", "--yes"]);
    }
    let ran = daemon.ctl_ok(&["apply", "--rollback", "--yes"]);
    assert!(ran.err.replace('→', "->").contains("nice: 3 -> 2"), "{ran:#?}");
    let ran = daemon.ctl_ok(&["apply", "--rollback", "--yes"]);
    assert!(ran.err.replace('→', "->").contains("nice: 2 -> 1"), "{ran:#?}");
    assert_eq!(generations(&daemon).current, Some(5));
    // The file still has what was given up.
    daemon.kill_both();
    daemon.start_again_as_it_is();
    daemon.wait_until("the status to say so", |s| {
        s.daemon.warnings.iter().any(|it| it.contains("went back to generation"))
    });
    assert_eq!(daemon.ctl(&["plan"]).code, 10);
    let ran = daemon.ctl_ok(&["apply", "--to", "3", "--yes"]);
    assert!(ran.err.replace('→', "->").contains("nice: 1 -> 3"), "{ran:#?}");
    assert_eq!(daemon.ctl(&["apply", "--to", "77", "--yes"]).code, 2);
}

#[test]
fn without_the_way_back_the_new_configuration_stays() {
    let daemon = Daemon::start(&program("a", ""));
    daemon.pid("a");
    daemon.write_programs(&[program("a", "nice = 1"), broken("new")].concat());
    let ran = daemon.ctl(&["apply", "--yes", "--no-rollback"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("was applied, but"), "{ran:#?}");
    daemon.wait_until("the new program", |s| s.programs.iter().any(|p| p.name == "new"));
    assert_eq!(outcomes(&daemon), ["applied", "kept"]);
}

#[test]
fn only_one_apply_at_a_time_and_no_reload_beside_it() {
    let daemon = Daemon::start(&program("a", ""));
    daemon.pid("a");
    daemon.write_programs(&program("a", "nice = 1").replace("100ms", "1000s"));
    let answer = daemon.http("POST", "/v1/apply", Some("{\"timeout\":\"3s\"}"));
    let begun: ApplyView = serde_json::from_str(&answer.body).expect("an ApplyView");
    assert!(begun.begun && begun.result.is_none(), "{begun:#?}");
    for (method, path) in [("POST", "/v1/apply"), ("POST", "/v1/reload"), ("GET", "/v1/plan")] {
        let answer = daemon.http(method, path, None);
        assert_eq!(answer.status, 409, "{path}: {answer:?}");
        assert!(answer.body.contains("generation 2 is being applied"), "{answer:?}");
    }
    wait_for("the apply to end", || {
        let list = generations(&daemon);
        list.applying.is_none().then_some(()).ok_or(format!("{list:?}"))
    });
    let why = generations(&daemon).generations[1].why.clone().unwrap_or_default();
    assert!(why.contains("`a` is not done after 3 s"), "{why}");
    daemon.pid("a");
    let answer = daemon.http("POST", "/v1/apply?wait=1m", Some("{\"timeout\":\"1s\"}"));
    let ended: ApplyView = serde_json::from_str(&answer.body).expect("an ApplyView");
    assert_eq!(ended.result.map(|it| it.outcome).as_deref(), Some("rolled-back"));
}

#[test]
fn other_files_than_those_of_the_plan_are_refused() {
    let daemon = Daemon::start(&program("a", ""));
    let pid = daemon.pid("a");
    daemon.write_programs(&program("a", "nice = 1"));
    let view: PlanView =
        serde_json::from_str(&daemon.http("GET", "/v1/plan", None).body).expect("a PlanView");
    daemon.write_programs(&program("a", "nice = 2"));
    let body = format!("{{\"fingerprint\":\"{}\"}}", view.fingerprint.expect("of the files"));
    let answer = daemon.http("POST", "/v1/apply", Some(&body));
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.body.contains("changed since the plan"), "{answer:?}");
    for body in
        ["{\"timeout\":\"0s\"}", "{\"timeout\":\"soon\"}", "{\"back\":true,\"generation\":1}"]
    {
        assert_eq!(daemon.http("POST", "/v1/apply", Some(body)).status, 400, "{body}");
    }
    assert_eq!(daemon.pid("a"), pid);
}

#[test]
fn what_cannot_be_written_down_is_refused_and_a_reload_works() {
    let setup = Setup::new(&program("a", ""));
    fs::create_dir_all(setup.dir().join("state")).expect("our own directory");
    fs::write(setup.dir().join("state/generations"), "in the way").expect("our own directory");
    let daemon = setup.start();
    let pid = daemon.pid("a");
    daemon.write_programs(&program("a", "nice = 1"));
    let ran = daemon.ctl(&["apply", "--yes"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("generations") && ran.err.contains("mendctl reload"), "{ran:#?}");
    assert_eq!(daemon.pid("a"), pid);
    daemon.ctl_ok(&["reload"]);
    let pid = daemon.new_pid("a", pid);
    let warned = |what: &str, is_warned: bool| {
        daemon.wait_until(what, |s| {
            let trouble = "generations of the configuration cannot be written";
            s.daemon.warnings.iter().any(|it| it.contains(trouble)) == is_warned
        });
    };
    warned("the trouble", true);
    fs::remove_file(daemon.file("state/generations")).expect("our own file");
    daemon.ctl_ok(&["restart", "a"]);
    warned("its end", false);
    daemon.write_programs(&program("a", "nice = 2"));
    daemon.ctl_ok(&["apply", "--yes"]);
    assert_ne!(daemon.pid("a"), pid);
}

#[test]
fn one_log_limit_among_100_programs_restarts_nothing_and_one_variable_restarts_one() {
    let all = |change: &str, environment: &str| -> String {
        let one = |n: usize| {
            let more = match n {
                41 => format!("logs = {{ keep = 4, max_size = '{change}' }}"),
                57 => format!("environment = {{ V = '{environment}' }}"),
                _ => String::new(),
            };
            program(&format!("p{n}"), &more)
        };
        (0..100).map(one).collect()
    };
    let daemon = Daemon::start(&all("1MiB", "1"));
    let all_run =
        |what: &str| daemon.wait_until(what, |s| s.programs.iter().all(|p| p.state == "RUNNING"));
    all_run("100 programs");
    let before = pids(&daemon);
    daemon.write_programs(&all("2MiB", "1"));
    let ran = daemon.ctl_ok(&["apply", "--yes"]);
    assert!(ran.out.contains("changes in place p41"), "{ran:#?}");
    assert_eq!(pids(&daemon), before);
    daemon.write_programs(&all("2MiB", "2"));
    let ran = daemon.ctl_ok(&["apply", "--yes"]);
    assert!(ran.out.contains("restarts p57"), "{ran:#?}");
    let after = pids(&daemon);
    let changed: Vec<_> = after.iter().filter(|(name, pid)| before[*name] != **pid).collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(changed[0].0, "p57");
}
