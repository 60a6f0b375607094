//! Whether a process belongs to a run: a look at one process, not a scan of all.

use super::proc;
use crate::name::RunId;

/// Most parents that are looked at.
const MAX_DEPTH: usize = 64;

/// How a run is told from others.
#[derive(Debug, Clone, Copy)]
pub struct Family<'a> {
    pub run: RunId,
    pub main_pid: u32,
    /// `MEND_INSTANCE` of the daemon.
    pub instance: &'a str,
}

/// Returns whether the process with this pid is one of the run's; `None` when it has ended, so
/// that nobody can tell.
pub fn belongs(pid: u32, family: Family<'_>) -> Option<bool> {
    if pid == family.main_pid {
        return Some(true);
    }
    let process = proc::stat(pid).filter(|process| !process.is_dead())?;
    let environment = proc::environment(pid).unwrap_or_default();
    let value = |name: &str| proc::value_in(&environment, name);
    if let Some(run) = value("MEND_RUN") {
        let ours = value("MEND_INSTANCE").as_deref() == Some(family.instance);
        return Some(ours && run.parse() == Ok(family.run.0));
    }
    if process.sid == family.main_pid || process.pgid == family.main_pid {
        return Some(true);
    }
    let mut parent = process.ppid;
    for _ in 0..MAX_DEPTH {
        if parent == family.main_pid {
            return Some(true);
        }
        match proc::stat(parent).filter(|_| parent > 1) {
            Some(stat) => parent = stat.ppid,
            None => break,
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn family(main_pid: u32) -> Family<'static> {
        Family { run: RunId(7), main_pid, instance: "abc" }
    }

    #[test]
    fn parents_and_marks_make_a_process_one_of_the_run() {
        let mut marked = Command::new("sleep")
            .arg("600")
            .envs([("MEND_RUN", "7"), ("MEND_INSTANCE", "abc")])
            .spawn()
            .unwrap();
        let mut plain = Command::new("sleep").arg("600").env_remove("MEND_RUN").spawn().unwrap();
        let own = std::process::id();
        assert_eq!(belongs(plain.id(), family(plain.id())), Some(true));
        assert_eq!(belongs(plain.id(), family(own)), Some(true), "a child");
        // The environment is there once the program is executed.
        while proc::is_executing(marked.id()) {}
        assert_eq!(belongs(marked.id(), family(u32::MAX)), Some(true), "by its marks");
        assert_eq!(belongs(marked.id(), Family { run: RunId(8), ..family(own) }), Some(false));
        assert_eq!(belongs(1, family(u32::MAX)), Some(false));
        for child in [&mut marked, &mut plain] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(belongs(plain.id(), family(u32::MAX)), None, "it has ended");
    }
}
