//! Sweeps and kills of runs that have no control group: stop to a fixed point, kill, look again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::snapshot::{Marks, Quarry};
use super::{Awaited, KillJob, Retry, SweepJob};
use crate::name::RunId;
use crate::os::pidfd::PidFd;
use crate::os::proc::{self, Stat};

/// Looks in a row that must find nothing before a tree that had members counts as gone.
const EMPTY_PASSES: u32 = 3;
/// The same for a run of which the keeper never had an orphan.
const QUIET_PASSES: u32 = 2;
/// Rounds of stopping after which killing begins although new processes still appear.
const MAX_STOP_ROUNDS: u32 = 200;

/// One process, held since it was found.
struct Member {
    pidfd: PidFd,
    starttime: u64,
    /// The job's signal has been sent.
    signalled: bool,
}

struct Job {
    quarry: Quarry,
    signal: i32,
    answer: bool,
    /// The main process of a kill; held since before it could have been reaped.
    main: Option<PidFd>,
    /// Something was found once, so only thorough looks count.
    deep: bool,
    empty_passes: u32,
    members: BTreeMap<u32, Member>,
    /// Somebody new was found since the last conclusion: they flee, so there is no time to lose.
    fleeing: bool,
    retry: Retry,
}

/// All jobs without a control group; one scan serves them all.
#[derive(Default)]
pub(super) struct Hunt {
    jobs: BTreeMap<RunId, Job>,
}

impl Hunt {
    /// Nothing is looked for.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(super) fn sweep(&mut self, job: SweepJob) {
        let (run, main_pid) = (job.run, job.main_pid);
        let everywhere = job.adopted_elsewhere;
        let quarry = Quarry { run, main_pid, with_main: false, everywhere };
        self.insert(quarry, job.signal, true, None, everywhere);
    }

    pub(super) fn kill(&mut self, job: KillJob) {
        let (run, main_pid) = (job.run, job.main_pid);
        let quarry = Quarry { run, main_pid, with_main: true, everywhere: false };
        self.insert(quarry, libc::SIGKILL, false, Some(job.main), true);
    }

    fn insert(
        &mut self,
        quarry: Quarry,
        signal: i32,
        answer: bool,
        main: Option<PidFd>,
        deep: bool,
    ) {
        let (members, retry) = (BTreeMap::new(), Retry::new());
        let job = Job {
            quarry,
            signal,
            answer,
            main,
            deep,
            empty_passes: 0,
            members,
            fleeing: false,
            retry,
        };
        self.jobs.insert(quarry.run, job);
    }

    pub(super) fn forget(&mut self, run: RunId) {
        self.jobs.remove(&run);
    }

    /// Lends the descriptors of processes whose end is waited for.
    pub(super) fn awaited(&self) -> impl Iterator<Item = Awaited<'_>> {
        let members = self.jobs.values().flat_map(|job| job.members.values());
        members.map(|member| member.pidfd.as_fd())
    }

    /// Returns when the next look is due, if not on an event.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let timed = self.jobs.values().filter(|job| job.signal == libc::SIGKILL || job.is_idle());
        timed.map(|job| job.retry.at).min()
    }

    /// Does everything that can be done now; returns the sweeps that are over.
    pub(super) fn step(&mut self, marks: &Marks, others: &BTreeSet<u32>) -> Vec<RunId> {
        for job in self.jobs.values_mut() {
            job.forget_dead();
        }
        let mut over = self.look_quickly(marks, others);
        over.extend(self.look_thoroughly(marks, others));
        // A kill that is done has no answer.
        over.retain(|run| self.jobs.remove(run).is_some_and(|job| job.answer));
        over
    }

    /// Serves the runs of which nothing was found yet from the keeper's children alone.
    fn look_quickly(&mut self, marks: &Marks, others: &BTreeSet<u32>) -> Vec<RunId> {
        for _ in 0..QUIET_PASSES {
            let shallow: BTreeMap<RunId, Quarry> = self
                .jobs
                .values()
                .filter(|job| !job.deep)
                .map(|job| (job.quarry.run, job.quarry))
                .collect();
            if shallow.is_empty() {
                return Vec::new();
            }
            let found = marks.orphans(&shallow, others);
            for job in self.jobs.values_mut().filter(|job| !job.deep) {
                if found.contains(&job.quarry.run) {
                    (job.deep, job.empty_passes) = (true, 0);
                } else {
                    job.empty_passes += 1;
                }
            }
        }
        let quiet = self.jobs.values().filter(|job| !job.deep && job.empty_passes >= QUIET_PASSES);
        quiet.map(|job| job.quarry.run).collect()
    }

    /// Serves all others with one scan of `/proc` per round; returns those that are over.
    fn look_thoroughly(&mut self, marks: &Marks, others: &BTreeSet<u32>) -> Vec<RunId> {
        let due: BTreeMap<RunId, Quarry> = self
            .jobs
            .values()
            .filter(|job| job.deep && job.is_due())
            .map(|job| (job.quarry.run, job.current_quarry()))
            .collect();
        if due.is_empty() {
            return Vec::new();
        }
        let found = marks.members(&due, others);
        self.hold(&found);
        let mut lethal = due.clone();
        lethal.retain(|run, _| self.jobs[run].signal == libc::SIGKILL);
        self.stop_to_a_fixed_point(&lethal, marks, others);
        let mut over = Vec::new();
        for run in due.keys() {
            let job = self.jobs.get_mut(run).expect("a due job is there");
            if job.conclude(found.contains_key(run)) {
                over.push(*run);
            }
        }
        over
    }

    /// Whoever is stopped cannot fork: when a look finds nobody new, everybody is held.
    fn stop_to_a_fixed_point(
        &mut self,
        lethal: &BTreeMap<RunId, Quarry>,
        marks: &Marks,
        others: &BTreeSet<u32>,
    ) {
        for _ in 0..MAX_STOP_ROUNDS {
            let mut stopped = 0;
            for run in lethal.keys() {
                stopped += self.jobs.get_mut(run).map_or(0, Job::stop_fresh);
            }
            if stopped == 0 {
                return;
            }
            let found = marks.members(lethal, others);
            self.hold(&found);
        }
    }

    fn hold(&mut self, found: &BTreeMap<RunId, Vec<Stat>>) {
        for (run, processes) in found {
            if let Some(job) = self.jobs.get_mut(run) {
                job.hold(processes);
            }
        }
    }
}

impl Job {
    /// Nobody is held, so no event will tell when to look again.
    fn is_idle(&self) -> bool {
        self.members.is_empty()
    }

    /// A main process that has ended may have left its pid to somebody else.
    fn current_quarry(&self) -> Quarry {
        let alive = self.main.as_ref().is_some_and(|main| !main.has_exited());
        Quarry { with_main: self.quarry.with_main && alive, ..self.quarry }
    }

    fn is_due(&self) -> bool {
        self.is_idle() || (self.signal == libc::SIGKILL && self.retry.is_due())
    }

    fn forget_dead(&mut self) {
        self.members.retain(|_, member| !member.pidfd.has_exited());
    }

    /// Opens what was found and makes sure that the pidfd is of the process that was found.
    fn hold(&mut self, processes: &[Stat]) {
        for process in processes {
            if self.members.get(&process.pid).is_some_and(|m| m.starttime == process.starttime) {
                continue;
            }
            let Ok(pidfd) = PidFd::open(process.pid) else { continue };
            if proc::stat(process.pid).is_some_and(|now| now.starttime == process.starttime) {
                let member = Member { pidfd, starttime: process.starttime, signalled: false };
                self.members.insert(process.pid, member);
                self.fleeing = true;
            }
        }
    }

    /// Stops who was not stopped yet; returns how many those were.
    fn stop_fresh(&mut self) -> usize {
        let fresh = self.members.values_mut().filter(|member| !member.signalled);
        fresh
            .map(|member| {
                let _ = member.pidfd.signal(libc::SIGSTOP); // Who is gone needs no stopping.
                member.signalled = true;
            })
            .count()
    }

    /// Sends the signal after a look; returns `true` when the tree is gone.
    fn conclude(&mut self, found: bool) -> bool {
        if let Some(main) = &self.main {
            let _ = main.signal(libc::SIGKILL); // It has ended: that is what was asked for.
        }
        if !found && self.members.is_empty() {
            self.empty_passes += 1;
            self.retry.soon();
            return self.empty_passes >= EMPTY_PASSES;
        }
        self.empty_passes = 0;
        if std::mem::take(&mut self.fleeing) {
            self.retry.soon();
        } else {
            self.retry.later();
        }
        let kill = self.signal == libc::SIGKILL;
        for member in self.members.values_mut() {
            if kill || !member.signalled {
                let _ = member.pidfd.wake(self.signal); // EPERM is tried again, or waited out.
                member.signalled = true;
            }
        }
        false
    }
}
