//! A server on a real socket before an engine of cardboard, for the tests of this module.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::capture::Cursor;
use crate::config::{self, Access, Effect, KeyChange, Program};
use crate::core::care::HealthState;
use crate::core::{
    Actor, BreakerState, Exit, Fate, Goal, Plan, ProcessStatus, ProgramChange, StateCode,
};
use crate::engine::{
    Act, ApplyBegun, DaemonStatus, Door, Generation, GenerationOutcome, Happening, HappeningKind,
    History, How, LogPlace, Outcome, OutcomeKind, Planned, Refusal, Reloaded, Request, Status,
    UpgradeBegun, door,
};
use crate::name::{ProcessName, RunId};
use crate::store::generations::{Draft, Generations};
use crate::time::{Instant, Wall};

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) const NOW: (Instant, Wall) =
    (Instant::from_nanos(1_000_000_000_000), Wall(1_795_434_727_120));

/// What the engine of cardboard was asked, and what it knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) acts: Mutex<Vec<Act>>,
    pub(super) kept: Mutex<Vec<Arc<Happening>>>,
    /// Acts whose client left before the answer.
    pub(super) abandoned: AtomicUsize,
}

pub(super) struct Bench {
    directory: tempfile::TempDir,
    pub(super) known: Arc<Known>,
    pub(super) access: SharedAccess,
    pub(super) lines: UnboundedSender<Vec<LogRecord>>,
    pub(super) query: Arc<Mutex<Option<LogQuery>>>,
    pub(super) history: crate::engine::history::History,
    events: broadcast::Sender<Arc<Happening>>,
    shutdown: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Bench {
    pub(super) fn start() -> Self {
        Self::with(Caps::default())
    }

    pub(super) fn with(caps: Caps) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let others = config::Principals { uids: vec![65_533], gids: Vec::new() };
        let access = Access { observe: others, ..Access::default() };
        let listener = bind(&directory.path().join("mend.sock"), &access).unwrap();
        let access = SharedAccess::new(access);
        let known = Arc::new(Known::default());
        let (handle, door) = door();
        let events = door.events.clone();
        let (lines, receiver) = unbounded_channel();
        let logs = FakeLogs { lines: Mutex::new(Some(receiver)), query: Arc::default() };
        let query = Arc::clone(&logs.query);
        let shutdown = CancellationToken::new();
        let file = directory.path().join("mend.db");
        let (history, _) =
            crate::engine::history::History::start(file, Default::default(), false).unwrap();
        let settings = ApiSettings {
            access: access.clone(),
            own_uid: nix::unistd::getuid().as_raw(),
            version: "1.2.3",
            brain_pid: 11,
            keeper_pid: 10,
            logs: Arc::new(logs),
            history: history.clone(),
            clock: || NOW,
            log_level: Box::new(|| "info".to_owned()),
            caps,
        };
        let (token, engine_knows) = (shutdown.clone(), Arc::clone(&known));
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let engine = tokio::spawn(play_engine(door, engine_knows));
                let fresh = tokio::sync::mpsc::unbounded_channel().1;
                serve(listener, fresh, handle, settings, token).await.unwrap();
                engine.abort();
            });
        });
        let thread = Some(thread);
        Self { directory, known, access, lines, query, history, events, shutdown, thread }
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("mend.sock")
    }

    pub(super) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends one request and reads the whole answer; the connection is closed after it.
    pub(super) fn call(&self, method: &str, target: &str, body: &str) -> Reply {
        let mut stream = self.connect();
        stream.write_all(request(method, target, body).as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Reply::read(&bytes)
    }

    /// Sends one request and returns the connection, ready to read the answer bit by bit.
    pub(super) fn open(&self, method: &str, target: &str, headers: &str) -> Reader {
        let mut stream = self.connect();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: mend\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        Reader { stream, seen: String::new() }
    }

    /// Makes something happen; it is also kept for those who resume.
    pub(super) fn happen(&self, id: u64) {
        let happening = happening(id);
        self.known.kept.lock().unwrap().push(Arc::clone(&happening));
        // Nobody listens before the first client does.
        let _ = self.events.send(happening);
    }

    pub(super) fn listeners(&self) -> usize {
        self.events.receiver_count()
    }

    /// Stops the server and waits for its end.
    pub(super) fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed; a second one would abort the test run.
            let _ = thread.join();
        }
    }
}

pub(super) fn request(method: &str, target: &str, body: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: mend\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    #[track_caller]
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(super) fn problem(&self) -> view::Problem {
        assert!(self.head.contains("content-type: application/problem+json"), "{self:?}");
        let problem: view::Problem = self.json();
        assert_eq!(problem.status, self.status);
        assert!(problem.kind.starts_with(TYPE_PREFIX), "{problem:?}");
        problem
    }
}

/// An answer that is read as it comes.
pub(super) struct Reader {
    pub(super) stream: UnixStream,
    pub(super) seen: String,
}

impl Reader {
    /// Reads on until `text` has come.
    #[track_caller]
    pub(super) fn until(&mut self, text: &str) -> &str {
        let mut buffer = [0; 4_096];
        while !self.seen.contains(text) {
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => panic!("ended before {text:?}: {}", self.seen),
                Ok(count) => count,
                Err(error) => panic!("{error} before {text:?}: {}", self.seen),
            };
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        &self.seen
    }
}

#[track_caller]
pub(super) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !reached() {
        assert!(std::time::Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn happening(id: u64) -> Arc<Happening> {
    Arc::new(Happening {
        id,
        at: NOW.1,
        kind: HappeningKind::State {
            process: "web:0".to_owned(),
            from: "STARTING".to_owned(),
            to: "RUNNING".to_owned(),
            pid: Some(7),
            run: Some(3),
            detail: "up\nand well".to_owned(),
        },
    })
}

/// Answers as an engine would. The name `nope` is unknown, `slow` is never done, `late` finds
/// the daemon stopping; a reload finds two mistakes unless its reason is `good`.
async fn play_engine(mut door: Door, known: Arc<Known>) {
    while let Some(request) = door.requests.recv().await {
        match request {
            Request::Status { names, reply } => {
                let _ = reply.send(check(&names).map(|()| status()));
            }
            Request::Act { act, mut reply } => {
                known.acts.lock().unwrap().push(act.clone());
                if act.names == ["slow"] {
                    let known = Arc::clone(&known);
                    tokio::spawn(async move {
                        reply.closed().await;
                        known.abandoned.fetch_add(1, Ordering::Relaxed);
                    });
                    continue;
                }
                let outcome = Outcome {
                    process: "web:0".parse().unwrap(),
                    result: OutcomeKind::Done,
                    message: "started (was stopped)".to_owned(),
                    status: running(),
                };
                let _ = reply.send(check(&act.names).map(|()| vec![outcome]));
            }
            Request::Upgrade { reply, .. } => {
                let _ = reply.send(Ok(UpgradeBegun { version: "9.9.9".to_owned(), event: 7 }));
            }
            Request::Reload { by, reply } => {
                let bad = Refusal::BadConfiguration { rendered: "line 3".to_owned(), mistakes: 2 };
                let good = Reloaded { added: vec!["new".to_owned()], ..Reloaded::default() };
                let is_good = by.reason.as_deref() == Some("good");
                let _ = reply.send(if is_good { Ok(good) } else { Err(bad) });
            }
            Request::Plan { reply, .. } => {
                let warnings = vec!["a warning".to_owned()];
                let fingerprint = "00c0ffee".to_owned();
                let planned = Planned { plan: plan(), fingerprint, warnings, given_up: None };
                let _ = reply.send(Ok(planned));
            }
            Request::Apply { request, reply } => {
                let busy = Refusal::Busy("generation 3 is being applied".to_owned());
                let is_busy = request.by.reason.as_deref() == Some("busy");
                let (warnings, begun) = (Vec::new(), true);
                let good = ApplyBegun { generation: 2, begun, event: 7, plan: plan(), warnings };
                let _ = reply.send(if is_busy { Err(busy) } else { Ok(good) });
            }
            Request::History { reply } => {
                let (generations, current) = (vec![generation()], Some(2));
                let _ = reply.send(History { generations, current, applying: None });
            }
            Request::Shutdown { reply, .. } => {
                let _ = reply.send(Ok(()));
            }
            Request::LogLevel { level, reply, .. } => {
                let bad = Refusal::Invalid(format!("`{level}` is no level"));
                let _ = reply.send(if level == "debug" { Ok("info".to_owned()) } else { Err(bad) });
            }
            Request::EventsAfter { id, reply } => {
                let kept = known.kept.lock().unwrap();
                let _ = reply.send(kept.iter().filter(|it| it.id > id).cloned().collect());
            }
            Request::Config { reply } => {
                let origin = config::show::Origin::Default("3".to_owned());
                let shown = config::show::Shown {
                    table: "program.web".to_owned(),
                    key: "nice".to_owned(),
                    value: Some("3".to_owned()),
                    origin,
                    hidden: false,
                };
                let _ = reply.send(Ok(vec![shown]));
            }
            Request::Counts { reply } => {
                let _ = reply.send(super::healing_bench::counts());
            }
            Request::Healing(request) => super::healing_bench::play(request),
            Request::LogPlaces { names, reply } => {
                let place =
                    LogPlace { process: "web:0".parse().unwrap(), stdout: None, stderr: None };
                let _ = reply.send(check(&names).map(|()| vec![place]));
            }
        }
    }
}

/// A plan in which every kind of change occurs.
pub(super) fn plan() -> Plan {
    let key = |key: &str, effect| KeyChange {
        key: key.to_owned(),
        old: Some("1".to_owned()),
        new: None,
        effect,
    };
    let change = |name: &str, fate| ProgramChange {
        name: name.parse().unwrap(),
        fate,
        keys: vec![key("nice", Effect::Restart)],
    };
    Plan {
        programs: vec![
            change("a", Fate::Start),
            change("b", Fate::Stop),
            change("c", Fate::Restart),
            change("d", Fate::RestartInTurn),
            change("e", Fate::RestartWith("c".parse().unwrap())),
            change("f", Fate::Update),
        ],
        settings: vec![key("supervisor.nofile", Effect::DaemonRestart)],
    }
}

/// The second of a daemon's generations.
pub(super) fn generation() -> Generation {
    let place = tempfile::tempdir().unwrap();
    let (mut generations, _) = Generations::open(place.path());
    let name = "alice".to_owned();
    let by = Actor { uid: Some(7), name, reason: Some("deploy".to_owned()), at: Wall(0) };
    for copy_of in [None, Some(1)] {
        let draft = Draft {
            at: Wall(0),
            by: by.clone(),
            how: How::Rollback,
            outcome: GenerationOutcome::Applied,
            changes: "starts web".to_owned(),
            why: Some("it was asked for".to_owned()),
            copy_of,
        };
        generations.add(draft, Some(&[])).unwrap();
    }
    generations.get(2).unwrap().clone()
}

pub(super) fn check(names: &[String]) -> Result<(), Refusal> {
    match names.first().map(String::as_str) {
        Some("nope") => Err(Refusal::UnknownName {
            name: "nope".to_owned(),
            suggestion: Some("node".to_owned()),
        }),
        Some("late") => Err(Refusal::ShuttingDown),
        _ => Ok(()),
    }
}

pub(super) fn status() -> Status {
    Status {
        daemon: DaemonStatus {
            version: "1.2.3",
            brain_pid: 11,
            keeper_pid: 10,
            started: Wall(0),
            config: PathBuf::from("/etc/mend/supervisor.toml"),
            warnings: vec!["the disk is full".to_owned()],
            phase: "running",
            mode: "NORMAL",
        },
        processes: vec![running()],
        now: NOW,
    }
}

/// A process that has been up for 67 seconds.
pub(super) fn running() -> ProcessStatus {
    let started = NOW.0 - Duration::from_secs(67);
    ProcessStatus {
        process: "web:0".parse::<ProcessName>().unwrap(),
        program: Arc::new(program()),
        state: StateCode::Running,
        goal: Goal::Up,
        goal_by: None,
        enabled: true,
        enabled_by: None,
        run: Some(RunId(3)),
        pid: Some(123),
        since: started,
        started: Some(started),
        restarts: 1,
        last_exit: Some((Exit::Code(3), started - Duration::from_secs(1))),
        failure: None,
        retry_at: None,
        failures: (1, 5),
        breaker: BreakerState::Closed,
        reason: "it is up".to_owned(),
        waiting_for: Vec::new(),
        ready: None,
        status_text: None,
        blocked: false,
        gives_up_at: None,
        health: HealthState::Up,
        incident: None,
    }
}

pub(super) fn program() -> Program {
    Program {
        name: "web".parse().unwrap(),
        group: "site".parse().unwrap(),
        replicas: Some(1),
        spawn: config::Spawn {
            argv: vec!["gunicorn".to_owned(), "app:app".to_owned()],
            user: None,
            directory: None,
            umask: 0o022,
            inherit_environment: true,
            environment: Default::default(),
            environment_files: Vec::new(),
            nice: None,
            oom_score_adj: 0,
            limits: config::Limits::default(),
            stdin: config::Stdin::Null,
            no_new_privs: false,
            notify: false,
            watchdog: None,
            ready_fd: None,
        },
        lifecycle: config::Lifecycle {
            autostart: true,
            priority: 0,
            requires: Vec::new(),
            wants: Vec::new(),
            after: Vec::new(),
            restart_with: Vec::new(),
            start_period: Duration::from_secs(1),
            ready: None,
            start_timeout: Duration::from_secs(60),
            watchdog: None,
            restart: config::RestartPolicy::Always,
            success_exit_codes: vec![0],
            permanent_exit_codes: Vec::new(),
            backoff: config::Backoff {
                initial: Duration::from_millis(500),
                max: Duration::from_secs(60),
                factor: 2.0,
                jitter: 0.25,
                reset_after: Duration::from_secs(60),
            },
            breaker: config::Breaker {
                failures: 5,
                window: Duration::from_secs(120),
                open: Duration::from_secs(300),
                max_open: Duration::from_secs(3_600),
            },
            stop: config::Stop { steps: Vec::new() },
            reload_signal: None,
        },
        logs: config::Logs {
            sink: config::Sink::File,
            merge_stderr: false,
            max_size_bytes: 1,
            max_age: None,
            keep: 1,
            max_total_bytes: None,
            compress: config::Compression::None,
            full_disk_block: Duration::from_secs(30),
        },
        watch: None,
        checks: Vec::new(),
        impact: config::Impact::Normal,
        stale_files: Vec::new(),
    }
}

pub(super) fn line(text: &str) -> LogRecord {
    LogRecord {
        process: "web:0".parse().unwrap(),
        channel: LogChannel::Stdout,
        at: Some(NOW.1),
        cursor: Cursor::default(),
        line: text.as_bytes().to_vec(),
        ended: true,
    }
}

/// Logs with one line; whoever follows gets what the test sends.
#[derive(Debug)]
struct FakeLogs {
    lines: Mutex<Option<UnboundedReceiver<Vec<LogRecord>>>>,
    query: Arc<Mutex<Option<LogQuery>>>,
}

impl LogSource for FakeLogs {
    fn open(
        &self,
        _places: Vec<LogPlace>,
        query: LogQuery,
    ) -> BoxFuture<'_, std::io::Result<Box<dyn LogLines>>> {
        let later = if query.follow { self.lines.lock().unwrap().take() } else { None };
        *self.query.lock().unwrap() = Some(query);
        let lines = FakeLines { now: Some(line("first")), later };
        Box::pin(async { Ok(Box::new(lines) as Box<dyn LogLines>) })
    }
}

struct FakeLines {
    now: Option<LogRecord>,
    later: Option<UnboundedReceiver<Vec<LogRecord>>>,
}

impl LogLines for FakeLines {
    fn next(&mut self) -> BoxFuture<'_, std::io::Result<Vec<LogRecord>>> {
        Box::pin(async {
            match (self.now.take(), &mut self.later) {
                (Some(line), _) => Ok(vec![line]),
                (None, Some(later)) => match later.recv().await {
                    Some(lines) if lines.is_empty() => Err(std::io::Error::other("torn")),
                    lines => Ok(lines.unwrap_or_default()),
                },
                (None, None) => Ok(Vec::new()),
            }
        })
    }
}
