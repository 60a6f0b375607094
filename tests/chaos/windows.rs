//! The narrow moments, each on purpose.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use mendd::api::view::ProcessView;
use nix::sys::signal::Signal;

use crate::lab::{Lab, MENDCTL, Role, Under, wait_for};
use crate::proc;

const WRITER: &str = "start_period = 0\nbackoff = { initial = '20ms', max = '20ms', jitter = 0.0 }\n\
                      breaker = { failures = 1000000 }\n";

/// Programs that write forever, ten lines a second each.
fn writers(count: usize) -> String {
    let table = |n| {
        format!(
            "[program.w{n}]\ncommand = ['{{bin}}/chaos-child', '{{data}}', 'w{n}', '10', '0', \
             '1']\n{WRITER}"
        )
    };
    (0..count).map(table).collect()
}

fn start(programs: &str) -> Lab {
    let mut lab = Lab::new(Under::Self_, programs);
    lab.start();
    lab.wait_settled();
    lab
}

fn is_running(process: &ProcessView) -> bool {
    process.state == "RUNNING" && process.pid.is_some()
}

/// Waits until the writers run, and returns their pids.
#[track_caller]
fn running(lab: &Lab, count: usize) -> Vec<u32> {
    let pid = |n: usize| lab.wait_process(&format!("w{n}"), "to run", is_running).pid;
    (0..count).filter_map(pid).collect()
}

/// The runs that a ledger says were started.
fn starts(lab: &Lab, name: &str) -> usize {
    let text = fs::read_to_string(lab.data().join(format!("{name}.ledger"))).unwrap_or_default();
    text.lines().filter(|line| line.starts_with("start ")).count()
}

fn freeze(lab: &Lab, role: Role) -> u32 {
    lab.strike(role, Signal::SIGSTOP).expect("it lives")
}

fn kill(lab: &Lab, pid: u32) {
    proc::send(pid, Signal::SIGKILL);
    lab.wait_dead(pid);
}

/// Kills keeper and brain so that neither sees the other die.
fn kill_both(lab: &Lab) {
    let (keeper, brain) = (freeze(lab, Role::Keeper), freeze(lab, Role::Brain));
    kill(lab, keeper);
    kill(lab, brain);
}

/// Waits until somebody serves. Only where no part of Mend is left at all an operator starts the
/// daemon again.
#[track_caller]
fn settle_or_start_the_dead(lab: &mut Lab) {
    let mut seen_dead = 0;
    wait_for("keeper and brain that serve", || {
        lab.reap();
        let nobody = lab.find(Role::Keeper).is_none() && lab.find(Role::Brain).is_none();
        seen_dead = if nobody { seen_dead + 1 } else { 0 };
        // A process that is about to become another one shows in neither role for a moment.
        if seen_dead == 10 {
            lab.start();
        }
        lab.settled()
    });
}

/// Waits until `deaf` runs and ignores SIGTERM, and returns its pid.
#[track_caller]
fn wait_until_deaf(lab: &Lab) -> Option<u32> {
    let pid = lab.wait_process("deaf", "to run", is_running).pid;
    wait_for("`deaf` to ignore SIGTERM", || {
        let path = format!("/proc/{}/status", pid.unwrap_or(0));
        let status = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let bits = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        let is_deaf = bits.is_some_and(|bits| bits & (1 << (Signal::SIGTERM as u64 - 1)) != 0);
        is_deaf.then_some(()).ok_or(status)
    });
    pid
}

#[test]
fn a_brain_killed_while_it_spawns_leaves_no_second_copy_and_no_lost_program() {
    let mut programs = String::new();
    for n in 0..40 {
        programs.push_str(&format!(
            "[program.s{n}]\ncommand = ['{{bin}}/chaos-child', '{{data}}', 's{n}', '100', '3', \
             '{n}']\n{WRITER}"
        ));
    }
    let mut lab = start(&programs);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        // Every program is spawned many times a second, so most kills hit a spawn.
        thread::sleep(Duration::from_micros(random.u64(0..60_000)));
        lab.strike(Role::Brain, Signal::SIGKILL);
    }
    lab.wait_settled();
    let before: Vec<usize> = (0..40).map(|n| starts(&lab, &format!("s{n}"))).collect();
    for (n, before) in before.into_iter().enumerate() {
        let name = format!("s{n}");
        wait_for("another run of each", || {
            if starts(&lab, &name) > before { Ok(()) } else { Err(name.clone()) }
        });
    }
    lab.shut_down();
}

#[test]
fn a_keeper_killed_while_a_brain_takes_over_is_replaced_and_nothing_runs_twice() {
    let mut lab = start(&writers(30));
    let pids = running(&lab, 30);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..15 {
        lab.strike(Role::Brain, Signal::SIGKILL);
        thread::sleep(Duration::from_micros(random.u64(0..25_000)));
        lab.strike(Role::Keeper, Signal::SIGKILL);
        // A brain that was killed before another was born leaves nobody: then by hand.
        wait_for("keeper and brain", || {
            let nobody = || lab.find(Role::Keeper).is_none() && lab.find(Role::Brain).is_none();
            if nobody() {
                thread::sleep(Duration::from_millis(100));
                if nobody() {
                    lab.start();
                }
            }
            lab.settled()
        });
    }
    assert_eq!(running(&lab, 30), pids);
    lab.shut_down();
}

#[test]
fn a_keeper_frozen_for_three_seconds_and_killed_costs_nothing() {
    let mut lab = start(&writers(5));
    let pids = running(&lab, 5);
    let keeper = freeze(&lab, Role::Keeper);
    thread::sleep(Duration::from_secs(3));
    kill(&lab, keeper);
    lab.wait_settled();
    assert_eq!(running(&lab, 5), pids);
    lab.shut_down();
}

#[test]
fn a_frozen_brain_without_a_keeper_is_replaced_by_the_next_start() {
    let mut lab = start(&writers(5));
    let pids = running(&lab, 5);
    let brain = freeze(&lab, Role::Brain);
    let keeper = lab.find(Role::Keeper).expect("it lives");
    kill(&lab, keeper);
    lab.start();
    lab.wait_settled();
    assert!(!proc::is_alive(brain), "two brains may not live");
    assert_eq!(running(&lab, 5), pids);
    lab.shut_down();
}

#[test]
fn of_two_daemons_started_at_once_one_stands() {
    let mut lab = start(&writers(5));
    let pids = running(&lab, 5);
    // The brain starts a keeper at the same time.
    let keeper = lab.find(Role::Keeper).expect("it lives");
    proc::send(keeper, Signal::SIGKILL);
    for _ in 0..4 {
        lab.start();
    }
    lab.wait_settled();
    wait_for("one keeper and one brain", || {
        lab.reap();
        let found = (lab.find_all(Role::Keeper).len(), lab.find_all(Role::Brain).len());
        if found == (1, 1) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    let late = lab.start();
    wait_for("refusal", || match lab.exit_code(late) {
        Some(75) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(running(&lab, 5), pids);
    lab.shut_down();
}

#[test]
fn a_keeper_started_by_a_brain_holds_the_runtime_directory() {
    let mut lab = start(&writers(1));
    running(&lab, 1);
    let keeper = lab.find(Role::Keeper).expect("it lives");
    kill(&lab, keeper);
    let (keeper, _) = lab.wait_settled();
    let signed = fs::read_to_string(lab.dir().join("run/mendd.lock")).expect("the lock");
    assert_eq!(signed.trim(), keeper.to_string());
    let second = lab.start();
    wait_for("refusal", || match lab.exit_code(second) {
        Some(75) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    lab.shut_down();
}

#[test]
fn a_next_keeper_killed_during_the_handover_is_followed_by_another() {
    let mut lab = start(&writers(20));
    let pids = running(&lab, 20);
    for pause in 0..20 {
        let (old, _) = lab.wait_settled();
        proc::send(old, Signal::SIGKILL);
        let next = wait_for("next keeper", || {
            lab.find(Role::Keeper).filter(|pid| *pid != old).ok_or_else(|| "none".to_owned())
        });
        thread::sleep(Duration::from_micros(pause * 300));
        proc::send(next, Signal::SIGKILL);
    }
    // At every moment somebody is left who starts the next: nobody does it by hand.
    lab.wait_settled();
    assert_eq!(running(&lab, 20), pids);
    lab.shut_down();
}

#[test]
fn a_keeper_killed_at_any_moment_of_an_upgrade_is_followed_by_another() {
    let mut lab = start(&writers(10));
    let pids = running(&lab, 10);
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..25 {
        let (keeper, _) = lab.wait_settled();
        proc::send(keeper, Signal::SIGUSR2);
        thread::sleep(Duration::from_micros(random.u64(0..150_000)));
        kill(&lab, keeper);
    }
    // Nobody starts anything by hand.
    lab.wait_settled();
    assert_eq!(running(&lab, 10), pids);
    lab.shut_down();
}

/// Begins an upgrade and returns keeper, old brain and new brain while all three live; `None`
/// when that moment was missed.
fn upgrade_under_way(lab: &Lab) -> Option<[u32; 3]> {
    let (keeper, old) = lab.wait_settled();
    proc::send(keeper, Signal::SIGUSR2);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // Of the keeper's children alone: the moment is short, and a machine has many processes.
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"));
        let children = children.map_or_else(
            |_| proc::children(keeper),
            |text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        );
        let is_brain = |pid: &u32| proc::command(*pid).contains(" @brain ");
        let brains: Vec<u32> = children.into_iter().filter(is_brain).collect();
        match *brains.as_slice() {
            [one, other] if one == old => return Some([keeper, old, other]),
            [one, other] if other == old => return Some([keeper, old, one]),
            [one] if one == old && Instant::now() < deadline => {}
            _ => return None,
        }
    }
}

#[test]
fn two_deaths_during_an_upgrade_cost_no_program_and_double_none() {
    let mut lab = start(&writers(10));
    let pids = running(&lab, 10);
    let mut random = fastrand::Rng::with_seed(13);
    let mut caught = 0;
    while caught < 15 {
        let Some(three) = upgrade_under_way(&lab) else { continue };
        caught += 1;
        let left = caught % 3;
        let mut victims: Vec<u32> =
            three.into_iter().enumerate().filter(|(n, _)| *n != left).map(|(_, pid)| pid).collect();
        random.shuffle(&mut victims);
        for pid in victims {
            proc::send(pid, Signal::SIGKILL);
            thread::sleep(Duration::from_micros(random.u64(0..3_000)));
        }
        settle_or_start_the_dead(&mut lab);
    }
    assert_eq!(running(&lab, 10), pids);
    lab.shut_down();
}

#[test]
fn a_new_brain_that_hangs_when_the_keeper_is_killed_gives_way_to_the_old_one() {
    let mut lab = start(&writers(5));
    let pids = running(&lab, 5);
    let frozen = wait_for("an upgrade that is caught", || {
        let Some([keeper, old, new]) = upgrade_under_way(&lab) else {
            return Err("missed".to_owned());
        };
        proc::send(new, Signal::SIGSTOP);
        kill(&lab, keeper);
        // The keeper may just have killed it, because the new one served already.
        let goes_on = wait_for("next keeper, or the old brain's end", || {
            match (lab.find(Role::Keeper), proc::is_alive(old)) {
                (Some(next), _) if next != keeper => Ok(true),
                (_, false) => Ok(false),
                (other, true) => Err(format!("{other:?}")),
            }
        });
        if goes_on {
            return Ok(new);
        }
        proc::send(new, Signal::SIGCONT);
        Err("too late".to_owned())
    });
    // One that was stopped before it had the lock is in nobody's way, and ends by itself.
    proc::send(frozen, Signal::SIGCONT);
    lab.wait_dead(frozen);
    lab.wait_settled();
    assert_eq!(running(&lab, 5), pids);
    lab.shut_down();
}

#[test]
fn a_lock_of_the_brain_that_somebody_keeps_is_waited_for() {
    let mut lab = start(&writers(2));
    let pids = running(&lab, 2);
    kill_both(&lab);
    let lock = fs::File::open(lab.dir().join("run/brain.lock")).expect("the lock");
    lock.lock().expect("it is free");
    lab.start();
    let begun = Instant::now();
    wait_for("brain that waits", || {
        let waits = lab.find(Role::Brain).is_some() && begun.elapsed() > Duration::from_secs(1);
        if waits { Ok(()) } else { Err("none".to_owned()) }
    });
    assert!(lab.settled().is_err(), "two may never move output");
    drop(lock);
    lab.wait_settled();
    assert_eq!(running(&lab, 2), pids);
    lab.shut_down();
}

#[test]
fn a_stop_whose_grace_runs_when_all_is_killed_is_finished() {
    let mut lab = start(
        "[program.deaf]\ncommand = ['{bin}/child', 'deaf']\nstart_period = 0\n\
         stop = { grace = '2s' }\n",
    );
    let pid = lab.wait_process("deaf", "to run", is_running).pid.expect("a pid");
    wait_for("deafness", || {
        let log = fs::read_to_string(lab.dir().join("logs/deaf/0.stdout.log")).unwrap_or_default();
        if log.contains("deaf") { Ok(()) } else { Err(log) }
    });
    lab.act("stop", "deaf", None);
    lab.wait_process("deaf", "to be stopping", |process| process.state == "STOPPING");
    kill_both(&lab);
    assert!(proc::is_alive(pid));
    lab.start();
    lab.wait_settled();
    let stopped = lab.wait_process("deaf", "to be stopped", |p| p.state == "STOPPED");
    assert_eq!(stopped.goal, "down");
    lab.wait_dead(pid);
    kill_both(&lab);
    lab.start();
    lab.wait_settled();
    let after = lab.process("deaf").expect("a status");
    assert_eq!((after.state.as_str(), after.goal.as_str()), ("STOPPED", "down"));
    lab.shut_down();
}

#[test]
fn a_restart_during_which_all_is_killed_ends_with_one_new_run() {
    let mut lab = start(&writers(1));
    let old = running(&lab, 1)[0];
    let mut ctl = Command::new(MENDCTL)
        .arg("--socket")
        .arg(lab.socket())
        .args(["restart", "w0"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("mendctl");
    // Frozen while the stop is under way, if the moment is caught; any other is as good.
    wait_for("stop", || match lab.process("w0") {
        Ok(process) if process.state == "RUNNING" && process.pid == Some(old) => {
            Err("still running".to_owned())
        }
        _ => Ok(()),
    });
    kill_both(&lab);
    let _ = ctl.kill();
    let _ = ctl.wait();
    lab.start();
    lab.wait_settled();
    let new = lab.wait_process("w0", "to run anew", |p| is_running(p) && p.pid != Some(old));
    assert_eq!(new.goal, "up");
    assert!(!proc::is_alive(old));
    lab.shut_down();
}

#[test]
fn a_brain_killed_during_the_shutdown_is_followed_by_one_that_ends_it() {
    let mut lab = start(
        "[program.deaf]\ncommand = ['{bin}/child', 'deaf']\nstart_period = 0\n\
         stop = { grace = '1s' }\n",
    );
    wait_until_deaf(&lab);
    let keeper = lab.find(Role::Keeper).expect("it lives");
    proc::send(keeper, Signal::SIGTERM);
    lab.wait_process("deaf", "to be stopping", |process| process.state == "STOPPING");
    lab.strike(Role::Brain, Signal::SIGKILL);
    wait_for("end of everything", || {
        let left = lab.family();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    // On its way out a process is in no family any more before it can be reaped.
    let code = wait_for("end of the keeper", || {
        lab.exit_code(keeper).ok_or_else(|| "it cannot be reaped yet".to_owned())
    });
    assert_eq!(code, 0);
}

#[test]
fn a_start_after_all_was_killed_in_the_middle_of_the_shutdown_runs_everything_again() {
    let deaf = "[program.deaf]\ncommand = ['{bin}/child', 'deaf']\nstart_period = 0\n\
                stop = { grace = '1s' }\n";
    let mut lab = start(&format!("{deaf}{}", writers(3)));
    running(&lab, 3);
    let old = wait_until_deaf(&lab);
    proc::send(lab.find(Role::Keeper).expect("it lives"), Signal::SIGTERM);
    lab.wait_process("deaf", "to be stopping", |process| process.state == "STOPPING");
    kill_both(&lab);
    lab.start();
    lab.wait_settled();
    running(&lab, 3);
    lab.wait_process("deaf", "to run anew", |p| is_running(p) && p.pid != old);
    lab.shut_down();
}
