//! One look at the processes of the machine, and whose each of them is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::name::RunId;
use crate::os::proc::{self, Stat};

/// While a program is being executed its environment is empty; it is read again this often.
const EXEC_LOOKS: u32 = 10;
const EXEC_PAUSE: Duration = Duration::from_micros(200);

/// How the processes of this daemon are told from all others.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    /// The subreaper that orphans go to.
    pub(crate) keeper_pid: u32,
    /// The value of `MEND_INSTANCE` that a marked process must have too.
    pub(crate) instance: Option<String>,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quarry {
    pub(crate) run: RunId,
    pub(crate) main_pid: u32,
    /// The main process is to be found as well (it has not ended).
    pub(crate) with_main: bool,
    /// Orphans may be elsewhere than below the keeper.
    pub(crate) everywhere: bool,
}

impl Quarry {
    /// Whether the pid of the main process that has ended is now somebody else's, and so are the
    /// session and the group of this number: the kernel gives a number again only when neither a
    /// process nor a session nor a group has it.
    fn is_number_reused(&self) -> bool {
        !self.with_main && proc::stat(self.main_pid).is_some_and(|holder| !holder.is_dead())
    }
}

impl Marks {
    /// Returns the run in the environment of `pid`: `None` without any marker or another
    /// daemon's, which a caller must not touch on other grounds either if it is `Some`.
    fn marker(&self, pid: u32) -> Marker {
        let mut environment = proc::environment(pid);
        for _ in 0..EXEC_LOOKS {
            let is_empty = environment.as_ref().is_some_and(Vec::is_empty);
            if !is_empty || !proc::is_executing(pid) {
                break;
            }
            std::thread::sleep(EXEC_PAUSE);
            environment = proc::environment(pid);
        }
        let Some(environment) = environment else { return Marker::None };
        let Some(run) = proc::value_in(&environment, "MEND_RUN") else { return Marker::None };
        if let Some(instance) = &self.instance
            && proc::value_in(&environment, "MEND_INSTANCE").as_ref() != Some(instance)
        {
            return Marker::Foreign;
        }
        run.parse().map_or(Marker::Foreign, |run| Marker::Run(RunId(run)))
    }

    /// Says whose `process` is by its own marks, without a look at its parents.
    fn owner(&self, process: &Stat, hunted: &BTreeMap<RunId, Quarry>) -> Option<RunId> {
        match self.marker(process.pid) {
            Marker::Run(run) => return hunted.contains_key(&run).then_some(run),
            Marker::Foreign => return None,
            Marker::None => {}
        }
        hunted
            .values()
            .filter(|quarry| quarry.main_pid != 0)
            .find(|quarry| process.sid == quarry.main_pid || process.pgid == quarry.main_pid)
            .filter(|quarry| !quarry.is_number_reused())
            .map(|quarry| quarry.run)
    }

    /// The quick look: among the keeper's own children only. An orphan has to be there.
    pub(crate) fn orphans(
        &self,
        hunted: &BTreeMap<RunId, Quarry>,
        others: &BTreeSet<u32>,
    ) -> BTreeSet<RunId> {
        proc::children(self.keeper_pid)
            .into_iter()
            .filter(|pid| !others.contains(pid))
            .filter_map(proc::stat)
            .filter(|process| !process.is_dead())
            .filter_map(|process| self.owner(&process, hunted))
            .collect()
    }

    /// The thorough look: every process, by its marks, then whatever descends from those or
    /// is in a session that one of them leads.
    ///
    /// `others` are the main processes of runs that live on; they and theirs are not touched.
    pub(crate) fn members(
        &self,
        hunted: &BTreeMap<RunId, Quarry>,
        others: &BTreeSet<u32>,
    ) -> BTreeMap<RunId, Vec<Stat>> {
        let own = std::process::id();
        let processes: BTreeMap<u32, Stat> =
            proc::all_stats().into_iter().map(|process| (process.pid, process)).collect();
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for process in processes.values() {
            children.entry(process.ppid).or_default().push(process.pid);
        }
        let everywhere = hunted.values().any(|quarry| quarry.everywhere);
        let mut below_us = descendants(&children, self.keeper_pid);
        let mains: BTreeMap<u32, RunId> = hunted
            .values()
            .filter(|quarry| quarry.with_main)
            .map(|quarry| (quarry.main_pid, quarry.run))
            .collect();
        for main in mains.keys() {
            below_us.insert(*main);
            below_us.append(&mut descendants(&children, *main));
        }
        let protected = |pid: u32| {
            pid == own
                || pid == self.keeper_pid
                || pid <= 1
                || (others.contains(&pid) && !mains.contains_key(&pid))
        };

        let mut owners: BTreeMap<u32, RunId> = BTreeMap::new();
        for process in processes.values() {
            let reachable = below_us.contains(&process.pid);
            if protected(process.pid) || process.is_dead() || !(reachable || everywhere) {
                continue;
            }
            let owner = mains.get(&process.pid).copied().or_else(|| self.owner(process, hunted));
            if let Some(run) = owner.filter(|run| reachable || hunted[run].everywhere) {
                owners.insert(process.pid, run);
            }
        }
        spread(&mut owners, &processes, &children, &protected);

        let mut members: BTreeMap<RunId, Vec<Stat>> = BTreeMap::new();
        for (pid, run) in owners {
            if let Some(process) = processes.get(&pid).filter(|process| !process.is_dead()) {
                members.entry(run).or_default().push(process.clone());
            }
        }
        members
    }
}

enum Marker {
    Run(RunId),
    /// Marked by another daemon, or not by a number.
    Foreign,
    None,
}

fn descendants(children: &BTreeMap<u32, Vec<u32>>, root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// Gives what descends from an owned process, or is in its session, to the same owner.
fn spread(
    owners: &mut BTreeMap<u32, RunId>,
    processes: &BTreeMap<u32, Stat>,
    children: &BTreeMap<u32, Vec<u32>>,
    protected: &impl Fn(u32) -> bool,
) {
    let mut by_session: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for process in processes.values() {
        by_session.entry(process.sid).or_default().push(process.pid);
    }
    let mut open: Vec<(u32, RunId)> = owners.iter().map(|(pid, run)| (*pid, *run)).collect();
    while let Some((pid, run)) = open.pop() {
        // Only a session whose leader is owned: the leader's pid names it.
        let leads = processes.get(&pid).is_some_and(|process| process.sid == pid);
        let session = by_session.get(&pid).filter(|_| leads).into_iter().flatten();
        for next in children.get(&pid).into_iter().flatten().chain(session) {
            if !protected(*next) && !owners.contains_key(next) {
                owners.insert(*next, run);
                open.push((*next, run));
            }
        }
    }
}
