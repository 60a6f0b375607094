//! Programs that run and do not do their work: slow, flooding, silent, without what they require.

use nix::sys::signal::Signal;

use super::services::{nginx_of, write_nginx};
use super::{Case, put, well};
use crate::harness::{Daemon, Setup};
use crate::healing::{PACE, answers, web};
use crate::proc;
use crate::readiness::free_port;

#[test]
fn a_server_that_has_become_slow_is_restarted() {
    let port = free_port();
    let setup = Setup::new(&format!(
        "[program.web]\ncommand = ['{{child}}', 'late', '{port}', '{{dir}}/late']\n\
         start_period = '100ms'\nstop = {{ grace = '500ms' }}\n\
         [[program.web.check]]\nname = 'answers'\n\
         http = {{ url = 'http://127.0.0.1:{port}/', latency = {{ fail = '150ms' }} }}\n{PACE}\
         heal = ['restart']\n"
    ));
    let daemon = well(setup, &["web"]);
    let before = daemon.pid("web");
    let case = Case::begin(&daemon, "web", "slow");
    put(&daemon, "late", "0.25");
    let told = case.over();
    told.assert_healed("slow", &["restart"], &["answers too slowly", "150 ms are allowed"]);
    assert_ne!(daemon.pid("web"), before);
}

fn worker(check: &str, heal: &str) -> Daemon {
    let setup = Setup::new(&format!(
        "[program.worker]\ncommand = ['{{child}}', 'moody', '{{dir}}/mood']\n\
         start_period = '100ms'\nstop = {{ grace = '500ms' }}\nreload_signal = 'HUP'\n\
         [[program.worker.check]]\nname = 'talk'\n{check}\n{PACE}heal = {heal}\n"
    ));
    well(setup, &["worker"])
}

#[test]
fn a_program_that_floods_its_log_is_quietened() {
    let check = "log = { pattern = '.', fail = 2000, within = '1s' }";
    let daemon = worker(check, "['confirm', 'reload', 'restart']");
    let before = daemon.pid("worker");
    let case = Case::begin(&daemon, "worker", "log storm");
    put(&daemon, "mood", "storm\n");
    let told = case.over();
    told.assert_healed("log-storm", &["reload"], &["floods its log", "lines a second"]);
    assert_eq!(daemon.pid("worker"), before, "it was not replaced");
}

#[test]
fn a_worker_that_has_fallen_silent_is_restarted() {
    let daemon = worker("silence = '1s'", "['reload', 'restart']");
    let before = daemon.pid("worker");
    let case = Case::begin(&daemon, "worker", "silent worker");
    put(&daemon, "mood", "silent\n");
    let told = case.over();
    told.assert_healed("silent", &["restart"], &["works no more", "no output for"]);
    assert_ne!(daemon.pid("worker"), before);
}

#[test]
fn an_nginx_whose_backend_is_frozen_is_left_alone_and_the_backend_is_healed() {
    let (app, port) = (free_port(), free_port());
    let setup = Setup::new("");
    let server = format!(
        "server {{ listen 127.0.0.1:{port}; proxy_read_timeout 200ms;\n\
         location / {{ proxy_pass http://127.0.0.1:{app}; }} }}"
    );
    write_nginx(setup.dir(), "", &server);
    let asks = format!("http = 'http://127.0.0.1:{port}/'");
    let Some(service) = nginx_of(setup, port, asks) else { return };
    // Takes as long as it takes the front to notice.
    let wakes = "until test -e {dir}/noticed; do sleep 0.05; done; kill -CONT $MEND_PID";
    let text = format!(
        "{}{}requires = ['app']\n{}",
        web("app", app, "", &format!("heal = [{{ run = ['sh', '-c', '{wakes}'] }}]")),
        service.program,
        service.check("['confirm', 'restart']")
    );
    answers(service.setup.dir(), "app", "200 OK");
    let daemon = well(service.setup.programs(&text), &["app", "web"]);
    let (before, backend) = (daemon.pid("web"), daemon.pid("app"));
    let front = Case::begin(&daemon, "web", "nginx, its backend is down");
    let back = Case::begin(&daemon, "app", "backend frozen");
    proc::send(backend, Signal::SIGSTOP);
    let told = front.until("to be explained", |told| told.incident.cause.is_some());
    told.assert_taken_for("dependency-down", &["which it requires, is"]);
    put(&daemon, "noticed", "");
    back.over().assert_healed("frozen", &["run"], &["was stopped by a signal"]);
    let told = front.over();
    told.assert_came_back("dependency-down", &["fails because `app`, which it requires, is"]);
    assert_eq!(daemon.pid("web"), before, "it was not replaced");
}
