//! The bundle of an incident that has happened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use mendd::api::view::{IncidentStoryView, IncidentsView};
use nix::sys::signal::Signal;

use crate::harness::{Daemon, wait_for};
use crate::proc;

const SECRET: &str = "hunter2-do-not-tell";

const PROGRAMS: &str = "\
    [defaults.program]\nstart_period = 0\n\
    [program.web]\n\
    command = ['sh', '-c', 'echo line of output; echo --token=hunter2-do-not-tell >&2; \
        exec sleep 100000', '--password', 'hunter2-do-not-tell']\n\
    environment = { DB_PASSWORD = 'hunter2-do-not-tell', \
        URL = 'postgres://me:hunter2-do-not-tell@db/x' }\n\
    [[program.web.check]]\nname = 'looks'\nexec = ['true']\ninterval = '1s'\n";

fn unpack(path: &Path) -> BTreeMap<String, String> {
    let file = File::open(path).expect("the bundle is there");
    let decoder = zstd::stream::read::Decoder::new(file).expect("it is compressed");
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(decoder).entries().expect("an archive") {
        let mut entry = entry.expect("a whole entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("a text");
        files.insert(name, text);
    }
    files
}

#[test]
fn an_incident_fits_into_a_file_that_tells_no_secret() {
    let daemon = Daemon::start(PROGRAMS);
    let pid = daemon.pid("web");
    wait_for("the output and a result of the check", || {
        let logs = daemon.ctl_ok(&["logs", "web"]).out;
        let shown = daemon.ctl(&["check", "show", "web/looks"]).out;
        let is_there = logs.contains("line of output") && logs.contains("token");
        if is_there && shown.contains("history:") { Ok(()) } else { Err(format!("{logs}{shown}")) }
    });
    proc::send(pid, Signal::SIGKILL);
    daemon.new_pid("web", pid);
    let id = wait_for("the incident", || {
        let list: IncidentsView = daemon.http("GET", "/v1/incidents", None).json();
        list.incidents.first().map(|it| it.id).ok_or_else(|| format!("{list:?}"))
    });
    let path = daemon.file("web.tar.zst");
    let output = path.to_str().expect("a plain path");
    let number = id.to_string();
    let made = daemon.ctl_ok(&["incidents", "bundle", &number, "-o", output]);
    assert_eq!(made.err, "", "nothing is missing");
    let files = unpack(&path);
    let file = |name: &str| {
        files.get(&format!("incident-{id}/{name}")).unwrap_or_else(|| {
            panic!("no {name} in {:?}", files.keys());
        })
    };
    let story: IncidentStoryView = serde_json::from_str(file("incident.json")).expect("a story");
    assert_eq!(story.incident.id, id);
    assert!(file("logs/stdout.log").contains("line of output"));
    assert!(file("logs/stdout.log").contains("--token=***"));
    assert!(file("checks/looks.json").contains("pass"));
    assert!(file("config.json").contains("program.web"));
    assert!(file("version.json").contains(env!("CARGO_PKG_VERSION")));
    for name in ["README.txt", "incident.txt", "status.json", "why.json", "checks.json"] {
        assert!(!file(name).is_empty(), "{name}");
    }
    for (name, text) in &files {
        assert!(!text.contains(SECRET), "{name} tells: {text}");
    }
    let again = daemon.ctl(&["incidents", "bundle", &number, "-o", output]);
    assert_eq!(again.code, 1, "{again:#?}");
    assert!(again.err.contains("exists already"), "{again:#?}");
    assert_eq!(daemon.ctl(&["incidents", "bundle", "4711"]).code, 4);
}
