//! The keeper's loop: signals, children and the brain, in one `epoll_wait` without a timeout.

use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::arguments::KeeperArguments;
use super::brain::{Brain, OWN_EXECUTABLE};
use super::foreign::{foreign_status, process_has_exited};
use super::handover;
use super::table::{Slot, Table};
use super::upgrade::Upgrade;
use super::wire::{ToBrain, ToKeeper, WaitStatus};
use crate::name::RunId;
use crate::os::{process, seqpacket};

const SIGNALS: u64 = u64::MAX;
const BRAIN: u64 = u64::MAX - 1;

/// How long a brain may take to end once it has said goodbye.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(10);

/// Exit code of a brain that refuses its configuration (sysexits.h `EX_CONFIG`).
const EX_CONFIG: i32 = 78;

pub(super) struct Keeper {
    pub(super) arguments: KeeperArguments,
    /// Keeps the runtime directory ours while this process lives.
    pub(super) lock: OwnedFd,
    pub(super) table: Table,
    pub(super) brain: Brain,
    pub(super) epoll: Epoll,
    signals: SignalFd,
    /// Next index to list for a brain that asked, while its socket was full.
    listing: Option<usize>,
    /// Some exits could not be told because the socket was full.
    untold: bool,
    /// A brain that has handed over and lives until the first of ours holds every run, so that at
    /// no moment the death of this process leaves nobody who does.
    orphan: Option<OwnedFd>,
    /// Signals that came while no brain was there, as bits.
    pending_signals: u64,
    pub(super) upgrade: Upgrade,
    pub(super) goodbye: Option<u8>,
    /// When a brain that said goodbye must be gone; `None` once it was killed.
    dismiss_at: Option<Instant>,
}

/// Runs the keeper until the brain says goodbye; returns the exit code.
///
/// # Errors
///
/// Only at the start, before there is anything to lose.
pub fn run(arguments: KeeperArguments) -> io::Result<ExitCode> {
    if arguments.rehearsal {
        super::upgrade::rehearse(&arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    process::set_name(c"mendd");
    process::become_subreaper()?;
    let mut lock = std::fs::File::from(process::adopt_fd(arguments.lock)?);
    // One that an orphaned brain has started still names the keeper before it.
    super::sign_lock(&mut lock)?;
    let lock = OwnedFd::from(lock);
    let mut keeper = Keeper::new(arguments, lock)?;
    keeper.brain_loop();
    // Nobody may go on after the end.
    keeper.dismiss_resting();
    Ok(ExitCode::from(keeper.goodbye.unwrap_or(0)))
}

impl Keeper {
    fn new(arguments: KeeperArguments, lock: OwnedFd) -> io::Result<Self> {
        // Only those that are read from the descriptor: SIGABRT of a watchdog must work. In one
        // step: one that came while the image before became this one must not end it.
        watched_signals().thread_set_mask()?;
        let signals = SignalFd::with_flags(
            &watched_signals(),
            SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
        )?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        let mut table = match arguments.table {
            Some(fd) => handover::read_table(fd)?,
            None => Table::new(),
        };
        handover::inherit_all(&table, false);
        let mut orphan = None;
        if let Some(fd) = arguments.handover {
            let socket = process::adopt_fd(fd)?;
            orphan = handover::receive(socket.as_fd(), &mut table).then_some(socket);
        } else if arguments.table.is_none() {
            handover::take_stored(&mut table);
        }
        if arguments.table.is_none() && orphan.is_none() {
            let was_cut = arguments.handover.is_some();
            orphan = super::orphan::take_over(&arguments.runtime_dir, &mut table, was_cut);
        }
        let brain = Brain::new(&arguments)?;
        let mut keeper = Self {
            arguments,
            lock,
            table,
            brain,
            epoll,
            signals,
            listing: None,
            untold: false,
            pending_signals: 0,
            orphan,
            upgrade: Upgrade::default(),
            goodbye: None,
            dismiss_at: None,
        };
        for index in 0..keeper.table.end() {
            keeper.watch_foreign(index);
        }
        if let Some((pid, socket)) = keeper.arguments.brain {
            keeper.adopt_brain(pid, process::adopt_fd(socket)?)?;
        }
        Ok(keeper)
    }

    /// Goes on with the brain of the image before this one.
    fn adopt_brain(&mut self, pid: u32, socket: OwnedFd) -> io::Result<()> {
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, BRAIN))?;
        self.brain.adopt(pid, socket);
        // What the image before had no time to tell, and the children whose signal it ate.
        self.untold = true;
        self.catch_up();
        self.reap();
        // A brain that is gone by now is the reaper's affair.
        let _ = self.send(ToBrain::Upgraded, &[]);
        Ok(())
    }

    fn brain_loop(&mut self) {
        let mut events = [EpollEvent::empty(); 32];
        while self.goodbye.is_none() || self.brain.pid.is_some() {
            let now = Instant::now();
            if self.goodbye.is_none() && self.brain.is_due(now) {
                self.start_brain(now);
            }
            self.check_upgrade(now);
            self.dismiss_brain(now);
            let count = match self.epoll.wait(&mut events, self.timeout(now)) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => {
                    eprintln!("mendd: cannot wait for events: {error}");
                    1
                }
            };
            let mut reap = false;
            for event in &events[..count] {
                match event.data() {
                    SIGNALS => reap |= self.read_signals(),
                    BRAIN => self.serve_brain(event.events()),
                    index => self.foreign_event(usize::try_from(index).unwrap_or(usize::MAX)),
                }
            }
            if reap {
                // What the brain said before the children died comes first.
                self.read_brain();
                self.reap();
            }
        }
    }

    fn timeout(&self, now: Instant) -> EpollTimeout {
        let upgrade = self.upgrade.deadline().map(|until| until.saturating_duration_since(now));
        let start = if self.goodbye.is_some() { None } else { self.brain.wait(now) };
        let dismiss = self.dismiss_at.map(|at| at.saturating_duration_since(now));
        [upgrade, start, dismiss]
            .into_iter()
            .flatten()
            .min()
            .and_then(|wait| EpollTimeout::try_from(wait + Duration::from_millis(1)).ok())
            .unwrap_or(EpollTimeout::NONE)
    }

    /// Kills a brain that said goodbye and does not go: its work is done, the daemon's is not.
    fn dismiss_brain(&mut self, now: Instant) {
        if self.dismiss_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        if let Some(pid) = self.brain.pid {
            eprintln!("mendd: the brain (pid {pid}) does not end; it is killed");
            // Our own child, not reaped yet: the pid is still its own.
            process::kill_child(pid);
        }
    }

    fn start_brain(&mut self, now: Instant) {
        self.listing = None;
        self.untold = false;
        let executable = self.upgrade.executable().unwrap_or(OWN_EXECUTABLE);
        let started = self.brain.start(executable).and_then(|()| {
            let socket = self.brain.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, BRAIN);
            self.epoll.add(socket, event).map_err(io::Error::from)
        });
        if let Err(error) = started {
            eprintln!("mendd: cannot start the brain: {error}; trying again");
            self.brain.start_later(now);
        }
    }

    /// Returns whether children may have ended.
    fn read_signals(&mut self) -> bool {
        let mut children = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
            if signal == libc::SIGCHLD {
                children = true;
            } else {
                self.pending_signals |= 1 << signal;
            }
        }
        self.tell_signals();
        children
    }

    /// Passes signals on once a brain serves; one that is starting would not know what to do.
    fn tell_signals(&mut self) {
        if !self.brain.ready {
            return;
        }
        for signal in 1..64 {
            if self.pending_signals & (1 << signal) != 0
                && self.send(ToBrain::Signal { signal }, &[]).is_ok()
            {
                self.pending_signals &= !(1 << signal);
            }
        }
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = process::reap_next() {
            if self.brain.pid == Some(pid) {
                self.brain_died(pid, status);
                continue;
            }
            if self.brain.was_dying(pid) {
                say_death(pid, status);
                continue;
            }
            if self.upgrade.was_resting(pid) {
                continue;
            }
            if self.upgrade.is_rehearsal(pid) {
                self.rehearsed(status);
                continue;
            }
            match self.table.find_pid(pid) {
                Some(index) => self.ended(index, WaitStatus::Known(status)),
                None => self.table.keep_unclaimed(pid, status),
            }
        }
    }

    fn ended(&mut self, index: usize, status: WaitStatus) {
        let Some(slot) = self.table.get_mut(index) else { return };
        slot.end(status);
        let run = RunId(slot.run);
        self.upgrade.tell_resting(ToBrain::Exited { run, status });
        let told = self.brain.ready && self.listing.is_none() && !self.untold;
        if told && self.send(ToBrain::Exited { run, status }, &[]).is_ok() {
            if let Some(slot) = self.table.get_mut(index) {
                slot.flags |= Slot::TOLD;
            }
        } else {
            self.untold = true;
            self.want_output(true);
        }
    }

    fn brain_died(&mut self, pid: u32, status: i32) {
        let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        if let Some(socket) = &self.brain.socket {
            // The last words of the brain count: what it held, what it spawned, its goodbye.
            let _ = self.epoll.delete(socket);
        }
        self.read_brain();
        let served = self.brain.ever_ready;
        self.brain.died(Instant::now());
        if self.goodbye.is_some() || self.upgrade_goes_on(status) {
            return;
        }
        if !served && self.table.is_empty() && code.is_some() {
            // Nothing runs and it never served: a refused configuration, a socket in the way.
            self.goodbye = code.and_then(|code| u8::try_from(code).ok());
            return;
        }
        say_death(pid, status);
    }

    fn serve_brain(&mut self, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLIN) {
            self.read_brain();
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.want_output(false);
            self.catch_up();
        }
        if !events.contains(EpollFlags::EPOLLHUP) {
            return;
        }
        if let Some(socket) = &self.brain.socket {
            // The brain closed its end, and all it said has been read: its death follows, and is
            // waited for where it means more than a crash.
            let _ = self.epoll.delete(socket);
            if self.goodbye.is_none() && !self.upgrade.is_under_way() {
                self.brain.hung_up(Instant::now());
            }
        }
    }

    pub(super) fn read_brain(&mut self) {
        let mut bytes = [0; seqpacket::MAX_BYTES];
        loop {
            let Some(socket) = &self.brain.socket else { return };
            match seqpacket::receive(socket.as_fd(), &mut bytes, false) {
                // A brain that died with unread messages; what it said itself comes after this.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Ok(seqpacket::Received { length: 0, .. }) | Err(_) => return,
                Ok(seqpacket::Received { length, fds, is_cut }) => {
                    if is_cut {
                        handover::say_cut();
                    }
                    match ToKeeper::decode(&bytes[..length]) {
                        Ok(message) => self.obey(message, fds, is_cut),
                        Err(error) => eprintln!("mendd: from the brain: {error}"),
                    }
                }
            }
        }
    }

    fn obey(&mut self, message: ToKeeper<'_>, fds: seqpacket::ReceivedFds, is_cut: bool) {
        let mut fds = fds.into_iter().flatten().map(IntoRawFd::into_raw_fd);
        match message {
            ToKeeper::Hold { run } => {
                let pipes = [fds.next().unwrap_or(-1), fds.next().unwrap_or(-1)];
                match self.table.find(run) {
                    Some(index) => self.replace_pipes(index, pipes),
                    None => {
                        if self.table.insert(Slot::new(run, pipes)).is_none() {
                            pipes.into_iter().for_each(handover::close);
                        }
                    }
                }
            }
            ToKeeper::Born { run, pid } => self.born(run, pid, fds.next(), is_cut),
            ToKeeper::Drop { run } => self.drop_run(run),
            ToKeeper::List => {
                self.listing = Some(0);
                self.catch_up();
            }
            ToKeeper::Ready => {
                self.brain.served();
                self.untold = true;
                self.catch_up();
                self.tell_signals();
                self.dismiss_resting();
                self.upgrade_serves();
                crate::os::memory::forget_code();
            }
            ToKeeper::Ping => {
                // A brain that does not read misses an answer, and that is the truth about it.
                let _ = self.send(ToBrain::Pong, &[]);
            }
            ToKeeper::Bye { code } => {
                self.goodbye = Some(code);
                self.dismiss_at = Some(Instant::now() + GOODBYE_PATIENCE);
            }
            ToKeeper::Upgrade { path, patience } => self.begin_upgrade(path, patience),
            ToKeeper::Withdrawn => self.brain_withdrew(),
        }
    }

    fn replace_pipes(&mut self, index: usize, pipes: [RawFd; 2]) {
        if let Some(slot) = self.table.get_mut(index) {
            let before = std::mem::replace(&mut slot.pipes, pipes);
            before.into_iter().for_each(handover::close);
        }
    }

    /// Takes in a run's process; `is_cut` says that it has a pidfd which did not fit in.
    fn born(&mut self, run: RunId, pid: u32, pidfd: Option<RawFd>, is_cut: bool) {
        let index = self.table.find(run).or_else(|| self.table.insert(Slot::new(run, [-1, -1])));
        let Some(index) = index else { return };
        let claimed = self.table.claim(pid);
        let Some(slot) = self.table.get_mut(index) else { return };
        slot.pid = pid;
        if let Some(pidfd) = pidfd {
            handover::close(std::mem::replace(&mut slot.pidfd, pidfd));
        }
        let pidfd = slot.pidfd;
        let is_child = pidfd >= 0 && process::lend_fd(pidfd, process::is_child);
        let foreign = slot.has(Slot::FOREIGN) || !is_child;
        // The status of a child that is not reaped yet is still to come: the one that was kept is
        // of an earlier process with the same pid.
        let claimed = claimed.filter(|_| !is_child);
        // A process that is still there cannot be the one whose status was kept.
        let gone = pidfd < 0 || process_has_exited(pidfd);
        match (gone, claimed) {
            (true, Some(status)) => self.ended(index, WaitStatus::Known(status)),
            // Alive when it was told of; SIGCHLD tells of a child also without a descriptor.
            (true, None) if pidfd < 0 && is_cut => {}
            (true, None) if pidfd < 0 => self.ended(index, WaitStatus::Unknown),
            _ if foreign => {
                if let Some(slot) = self.table.get_mut(index) {
                    slot.flags |= Slot::FOREIGN;
                }
                self.watch_foreign(index);
            }
            // Our own child: SIGCHLD has told, or will.
            _ => {}
        }
    }

    fn drop_run(&mut self, run: RunId) {
        let Some(index) = self.table.find(run) else { return };
        let slot = self.table.remove(index);
        for fd in [slot.pidfd, slot.pipes[0], slot.pipes[1]] {
            handover::close(fd);
        }
    }

    /// Watches a process that is not our child through its pidfd.
    fn watch_foreign(&mut self, index: usize) {
        let Some(slot) = self.table.get(index) else { return };
        if !slot.has(Slot::FOREIGN) || slot.has(Slot::EXITED) || slot.pidfd < 0 {
            return;
        }
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        let data = u64::try_from(index).unwrap_or(BRAIN);
        let added =
            process::lend_fd(slot.pidfd, |fd| self.epoll.add(fd, EpollEvent::new(flags, data)));
        if added == Err(nix::errno::Errno::EEXIST) {
            return;
        }
        self.foreign_event(index);
    }

    fn foreign_event(&mut self, index: usize) {
        let Some(slot) = self.table.get(index) else { return };
        if slot.pidfd < 0 || slot.has(Slot::EXITED) || !process_has_exited(slot.pidfd) {
            return;
        }
        if let Some(status) = foreign_status(slot.pidfd, slot.pid) {
            self.ended(index, status);
        }
    }

    /// Sends what a full socket held back: the list, then the exits.
    fn catch_up(&mut self) {
        while let Some(index) = self.listing {
            if index >= self.table.end() {
                if self.send(ToBrain::End, &[]).is_err() {
                    return self.want_output(true);
                }
                self.listing = None;
                if let Some(socket) = self.orphan.take() {
                    handover::dismiss(&socket);
                }
                break;
            }
            if self.send_entry(index).is_err() {
                return self.want_output(true);
            }
            self.listing = Some(index + 1);
        }
        if !self.untold || !self.brain.ready {
            return;
        }
        for index in 0..self.table.end() {
            let Some(slot) = self.table.get(index).copied() else { continue };
            let Some(status) = slot.exit().filter(|_| !slot.has(Slot::TOLD)) else { continue };
            if self.send(ToBrain::Exited { run: RunId(slot.run), status }, &[]).is_err() {
                return self.want_output(true);
            }
            if let Some(slot) = self.table.get_mut(index) {
                slot.flags |= Slot::TOLD;
            }
        }
        self.untold = false;
    }

    fn send_entry(&mut self, index: usize) -> io::Result<()> {
        let Some(slot) = self.table.get(index).copied() else { return Ok(()) };
        let mut fds = [-1; seqpacket::MAX_FDS];
        let mut count = 0;
        for fd in slot.pipes.into_iter().chain([slot.pidfd]).filter(|fd| *fd >= 0) {
            fds[count] = fd;
            count += 1;
        }
        let has_pidfd = slot.pidfd >= 0;
        let entry = ToBrain::Entry {
            run: RunId(slot.run),
            pid: (slot.pid != 0).then_some(slot.pid),
            exit: slot.exit(),
            pipes: u8::try_from(count).unwrap_or(0) - u8::from(has_pidfd),
            has_pidfd,
        };
        self.send(entry, &fds[..count])?;
        if slot.exit().is_some()
            && let Some(slot) = self.table.get_mut(index)
        {
            slot.flags |= Slot::TOLD;
        }
        Ok(())
    }

    pub(super) fn send(&self, message: ToBrain, fds: &[RawFd]) -> io::Result<()> {
        let socket = self.brain.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        seqpacket::send(socket.as_fd(), &message.encode(), fds, false)
    }

    fn want_output(&self, wanted: bool) {
        let output = if wanted { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        if let Some(socket) = &self.brain.socket {
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN | output, BRAIN);
            // Fails only for a socket that was just taken out because the brain is dying.
            let _ = self.epoll.modify(socket, &mut event);
        }
    }
}

fn say_death(pid: u32, status: i32) {
    let how = match libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) {
        Some(EX_CONFIG) => "refused its configuration".to_owned(),
        Some(code) => format!("exited with code {code}"),
        None => format!("was killed by signal {}", libc::WTERMSIG(status)),
    };
    eprintln!("mendd: the brain (pid {pid}) {how}; starting a new one");
}

fn watched_signals() -> SigSet {
    [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect()
}
