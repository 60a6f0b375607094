//! Services that are killed, stopped, wedged, out of memory or out of disk.

use std::io::{Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;

use super::services::{Service, database, nginx, redis};
use super::{Case, put};
use crate::harness::{Mount, Setup};
use crate::healing::PACE;
use crate::proc;

fn killed(service: Option<Service>, what: &'static str) {
    let Some(service) = service else { return };
    let name = service.name;
    let (daemon, _) = service.start("['restart']");
    let before = daemon.pid(name);
    let case = Case::begin(&daemon, name, what);
    proc::send(before, Signal::SIGKILL);
    let told = case.over();
    told.assert_came_back("killed", &["killed by SIGKILL", "it came back without a remedy"]);
    assert_ne!(daemon.pid(name), before);
}

fn stopped(service: Option<Service>, what: &'static str) {
    let Some(service) = service else { return };
    let name = service.name;
    let (daemon, _) = service.start("['restart', 'signal:CONT']");
    let before = daemon.pid(name);
    let case = Case::begin(&daemon, name, what);
    proc::send(before, Signal::SIGSTOP);
    // The workers of a server answer without their master.
    proc::children(before).into_iter().for_each(|pid| proc::send(pid, Signal::SIGSTOP));
    let told = case.until("to be noticed", |told| told.incident.cause.is_some());
    told.assert_taken_for("frozen", &["was stopped by a signal"]);
    proc::children(before).into_iter().for_each(|pid| proc::send(pid, Signal::SIGCONT));
    let told = case.over();
    told.assert_healed("frozen", &["signal"], &["was healed by `signal`"]);
    assert_eq!(daemon.pid(name), before, "it was not replaced");
}

#[test]
fn a_redis_that_is_killed_comes_back() {
    killed(redis("", ""), "redis killed");
}

#[test]
fn a_postgres_that_is_killed_comes_back() {
    killed(database(""), "postgres killed");
}

#[test]
fn an_nginx_that_is_killed_comes_back_without_its_old_workers() {
    killed(nginx("", "return 204;"), "nginx killed");
}

#[test]
fn a_redis_that_is_stopped_is_continued() {
    stopped(redis("", ""), "redis stopped");
}

#[test]
fn a_postgres_that_is_stopped_is_continued() {
    stopped(database(""), "postgres stopped");
}

#[test]
fn an_nginx_that_is_stopped_is_continued() {
    stopped(nginx("", "return 204;"), "nginx stopped");
}

/// Sends one command to a Redis and does not wait for what it says.
fn tell_redis(port: u16, command: &str) -> TcpStream {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    connection.write_all(format!("{command}\r\n").as_bytes()).expect("it reads");
    connection
}

#[test]
fn a_redis_that_accepts_and_never_answers_is_restarted() {
    let Some(service) = redis("", "reload_signal = 'HUP'") else { return };
    let (daemon, port) = service.start("['reload', 'restart']");
    let before = daemon.pid("cache");
    let case = Case::begin(&daemon, "cache", "redis wedged");
    let _sleeps = tell_redis(port, "DEBUG SLEEP 1000");
    let told = case.over();
    told.assert_healed("wedged", &["restart"], &["accepts connections and does not answer"]);
    assert_ne!(daemon.pid("cache"), before);
}

#[test]
fn a_redis_whose_disk_is_full_gets_room() {
    let setup = Setup::new("");
    let place = setup.dir().join("disk");
    let Some(disk) = Mount::new(place.clone(), "size=8m") else { return };
    let more = "--appendonly yes --appendfsync everysec";
    let Some(service) = redis(more, "directory = '{dir}/disk'") else { return };
    let service = Service { setup, ..service };
    let heal = "['restart', { run = ['rm', '-f', '{dir}/disk/filler'] }]";
    let (daemon, port) = service.start(heal);
    let before = daemon.pid("cache");
    let case = Case::begin(&daemon, "cache", "redis, disk full");
    disk.fill();
    let mut connection = tell_redis(port, &format!("SET key {}", "x".repeat(20_000)));
    let mut said = [0; 128];
    let _whatever = connection.read(&mut said);
    let told = case.over();
    told.assert_healed("disk-full", &["run"], &["the disk at", "is full", "was healed by `run`"]);
    assert_eq!(daemon.pid("cache"), before, "it was not replaced");
    drop(daemon);
    drop(disk);
}

#[test]
fn a_worker_that_needs_more_memory_than_it_may_have_comes_back() {
    let setup = Setup::new(
        "[program.worker]\ncommand = ['{child}', 'moody', '{dir}/mood']\nstart_period = '100ms'\n\
         limits = { as = '200MiB' }\nbackoff = { initial = '200ms' }\n\
         [[program.worker.check]]\nname = 'talk'\nsilence = '3s'\ninterval = '500ms'\n\
         timeout = '400ms'\nfall = 2\nrise = 2\nstable = '500ms'\nheal = ['restart']\n",
    );
    let daemon = super::well(setup, &["worker"]);
    let before = daemon.pid("worker");
    let case = Case::begin(&daemon, "worker", "out of memory by its own limit");
    put(&daemon, "mood", "hoard\n");
    let told = case.over();
    told.assert_came_back("out-of-memory", &["has no memory left", "Out of memory"]);
    assert_ne!(daemon.pid("worker"), before);
}

#[test]
fn a_worker_that_hoards_memory_is_restarted_before_it_is_too_late() {
    let setup = Setup::new(&format!(
        "[program.worker]\ncommand = ['{{child}}', 'moody', '{{dir}}/mood']\n\
         start_period = '100ms'\nstop = {{ grace = '500ms' }}\n\
         [[program.worker.check]]\nname = 'memory'\nmemory = {{ fail = '100MiB' }}\n{PACE}\
         heal = ['restart']\n"
    ));
    let daemon = super::well(setup, &["worker"]);
    let before = daemon.pid("worker");
    let case = Case::begin(&daemon, "worker", "memory beyond the limit of its check");
    put(&daemon, "mood", "hoard\n");
    let told = case.over();
    told.assert_healed("over-limit", &["restart"], &["is beyond a limit", "MiB"]);
    assert_ne!(daemon.pid("worker"), before);
}

/// A real kill by the kernel needs a control group with a limit.
#[test]
fn a_worker_that_the_kernel_kills_for_want_of_memory_comes_back() {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    if !controllers.is_ok_and(|names| names.split_whitespace().any(|name| name == "memory")) {
        return proc::skip("there is no cgroup v2 with a memory controller");
    }
    let setup = Setup::new(&format!(
        "[program.worker]\ncommand = ['{{child}}', 'moody', '{{dir}}/mood']\n\
         start_period = '100ms'\nlimits = {{ memory = '64MiB' }}\n\
         backoff = {{ initial = '200ms' }}\n\
         [[program.worker.check]]\nname = 'talk'\nsilence = '3s'\n{PACE}heal = ['restart']\n"
    ));
    let daemon = super::well(setup, &["worker"]);
    let case = Case::begin(&daemon, "worker", "out of memory, killed by the kernel");
    put(&daemon, "mood", "hoard\n");
    let told = case.over();
    told.assert_came_back("out-of-memory", &["more than its memory limit"]);
}
