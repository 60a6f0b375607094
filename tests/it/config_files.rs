//! Changes of the configuration files are noticed however they are made, and applied by
//! themselves where that is wanted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::apply::generations;
use crate::harness::{Daemon, Setup, wait_for};
use crate::proc;

fn program(name: &str, more: &str) -> String {
    format!("[program.{name}]\ncommand = ['sleep', '1000']\nstart_period = '100ms'\n{more}\n")
}

fn warning(daemon: &Daemon, what: &str, words: &[&str]) {
    daemon.wait_until(what, |status| {
        let has_all = |text: &String| words.iter().all(|word| text.contains(word));
        status.daemon.warnings.iter().any(has_all)
    });
}

fn no_warning(daemon: &Daemon, what: &str) {
    daemon.wait_until(what, |status| {
        status.daemon.warnings.iter().all(|it| !it.contains("mend.toml"))
    });
}

/// Puts a file in the place of another one, as editors do.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("swp");
    fs::write(&fresh, text).expect("our own directory");
    fs::rename(fresh, path).expect("our own directory");
}

#[test]
fn a_change_is_noticed_however_it_is_made() {
    let daemon = Daemon::start(&program("a", ""));
    let pid = daemon.pid("a");
    let path = daemon.file("mend.toml");
    let old = fs::read_to_string(&path).expect("the configuration");
    let new = old.replace("[program.a]", "[program.a]\nnice = 1");
    let good = ["has changed and is good", "mendctl plan"];

    fs::write(&path, &new).expect("our own file");
    warning(&daemon, "a file written in place", &good);
    replace(&path, &old);
    no_warning(&daemon, "the old text by a rename");
    replace(&path, &new);
    warning(&daemon, "a rename", &good);

    // As vim does with a backup: the file moves away, a new one comes.
    fs::rename(&path, path.with_extension("toml~")).expect("our own file");
    fs::write(&path, &old).expect("our own file");
    no_warning(&daemon, "the old text after a move");

    fs::remove_file(&path).expect("our own file");
    warning(&daemon, "a file that is gone", &["mend.toml", "a mistake", "cannot read"]);
    fs::write(&path, &new).expect("our own file");
    warning(&daemon, "a file that is back", &good);

    fs::write(&path, new.replace("nice = 1", "\nnice = 'very'")).expect("our own file");
    let line = old.lines().position(|line| line == "[program.a]").expect("it is there") + 3;
    let place = format!("mend.toml:{line}:8:");
    warning(&daemon, "the place of a mistake", &["a mistake", &place, "`nice`"]);
    assert_eq!(daemon.pid("a"), pid);
    daemon.kill_brain();
    warning(&daemon, "the mistake after a crash", &[&place]);
}

#[test]
fn files_that_are_links_are_followed() {
    let setup = Setup::new(&program("a", ""));
    // As Kubernetes mounts a ConfigMap: the files are links into a directory that is swapped.
    let at = |name: &str| setup.dir().join(name);
    for version in ["..v1", "..v2"] {
        fs::create_dir(at(version)).expect("our own directory");
    }
    symlink("..v1", at("..data")).expect("a link");
    symlink("..data/mend.toml", at("mend.toml")).expect("a link");
    fs::write(at("..v1/mend.toml"), "").expect("our own file");
    let daemon = setup.start();
    daemon.pid("a");
    let at = |name: &str| daemon.file(name);
    let old = fs::read_to_string(at("mend.toml")).expect("the configuration");
    let new = old.replace("[program.a]", "[program.a]\nnice = 1");
    fs::write(at("..v2/mend.toml"), &new).expect("our own file");
    symlink("..v2", at("..tmp")).expect("a link");
    fs::rename(at("..tmp"), at("..data")).expect("our own directory");
    warning(&daemon, "the swap of a link", &["has changed and is good"]);
    daemon.ctl_ok(&["apply", "--yes"]);
    no_warning(&daemon, "what was applied");
    // Where the link leads to now.
    fs::write(at("..v2/mend.toml"), &old).expect("our own file");
    warning(&daemon, "an edit behind the link", &["has changed and is good"]);
}

#[test]
fn an_include_that_comes_to_be_is_noticed_and_applied() {
    let setup = Setup::new(&program("a", "")).preamble("include = [\"conf.d/*.toml\"]\n");
    let daemon = setup.start();
    daemon.pid("a");
    fs::create_dir(daemon.file("conf.d")).expect("our own directory");
    fs::write(daemon.file("conf.d/b.toml"), program("b", "")).expect("our own file");
    warning(&daemon, "a directory with a file", &["has changed and is good"]);
    let ran = daemon.ctl_ok(&["apply", "--yes"]);
    assert!(ran.out.contains("starts b"), "{ran:#?}");
    fs::write(daemon.file("conf.d/c.toml"), program("c", "")).expect("our own file");
    warning(&daemon, "one more file", &["has changed and is good"]);
}

#[test]
fn auto_apply_applies_what_is_good_and_tries_what_fails_only_once() {
    let setup = Setup::new(&program("a", "")).supervisor("auto_apply = true");
    let mut daemon = setup.start();
    let mut pid = daemon.pid("a");
    daemon.write_programs(&program("a", "nice = 1"));
    pid = daemon.new_pid("a", pid);
    let until = |daemon: &Daemon, count: usize, outcome: &str| {
        wait_for(&format!("generation {count} to be {outcome}"), || {
            let list = generations(daemon);
            let is_so = list.generations.len() == count
                && list.applying.is_none()
                && list.generations.last().is_some_and(|it| it.outcome == outcome);
            is_so.then_some(()).ok_or(format!("{list:#?}"))
        });
    };
    until(&daemon, 2, "applied");
    assert_eq!(generations(&daemon).generations[1].by, "auto_apply");

    daemon.write_programs("[program.a]\ncommand = 3\n");
    warning(&daemon, "a mistake", &["mend.toml:", "a mistake"]);
    assert_eq!(daemon.pid("a"), pid);

    let bad = "[program.bad]\ncommand = 'exit 3'\nshell = true\nstart_period = 5\n";
    let bad = [program("a", "nice = 1"), bad.to_owned()].concat();
    daemon.write_programs(&bad);
    until(&daemon, 3, "rolled-back");
    warning(&daemon, "what was given up", &["given up", "generation 3"]);
    // The same text again, and a start of the daemon, are no change.
    daemon.write_programs(&bad);
    daemon.kill_brain();
    warning(&daemon, "what was given up, after a crash", &["given up", "generation 3"]);
    daemon.kill_both();
    daemon.start_again_as_it_is();
    warning(&daemon, "what was given up, after a start", &["given up", "generation 3"]);
    until(&daemon, 3, "rolled-back");
    assert_eq!(daemon.pid("a"), pid);

    daemon.write_programs(&[program("a", "nice = 1"), program("bad", "")].concat());
    until(&daemon, 4, "applied");
    assert!(proc::is_alive(daemon.pid("bad")));
    assert_eq!(daemon.pid("a"), pid);
}
