//! What goes over the wire. A type here is a promise: members may be added, never renamed.

mod healing;
mod statistics;

use serde::{Deserialize, Serialize};

pub use healing::*;
pub use statistics::*;

/// Version of the JSON documents below.
pub const SCHEMA: u32 = 1;

/// `GET /v1/status`, and `mendctl status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    pub schema: u32,
    /// `normal`, `degraded`, `emergency`, `stopping`.
    pub mode: String,
    pub daemon: DaemonView,
    pub programs: Vec<ProcessView>,
    pub sessions: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonView {
    pub version: String,
    pub pid: u32,
    pub keeper_pid: u32,
    /// RFC 3339.
    pub started: String,
    pub config: String,
    pub warnings: Vec<String>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessView {
    pub name: String,
    pub program: String,
    pub group: String,
    /// supervisord's state name.
    pub state: String,
    /// supervisord's state number.
    pub statecode: u16,
    /// `up` or `down`.
    pub goal: String,
    pub goal_by: Option<String>,
    pub goal_reason: Option<String>,
    /// Whether it starts with the daemon: an operator's word, else `autostart`.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Who enabled or disabled it; absent where `autostart` decides.
    #[serde(default)]
    pub enabled_by: Option<String>,
    #[serde(default)]
    pub enabled_reason: Option<String>,
    /// RFC 3339.
    #[serde(default)]
    pub enabled_at: Option<String>,
    pub pid: Option<u32>,
    pub run: Option<u64>,
    /// How its checks see it, all together: `none` (it has none, or does not run), `starting`,
    /// `up`, `suspect`, `down`, `healing`, `verifying`, `flapping`, `held`, `broken`.
    pub health: String,
    /// Its incident in progress.
    #[serde(default)]
    pub incident: Option<u64>,
    pub restarts: u64,
    pub exit: Option<ExitView>,
    /// supervisord's one-line description, e.g. `pid 123, uptime 0:01:07`.
    pub description: String,
    /// RFC 3339: when the state was entered.
    pub since: String,
    /// RFC 3339: when the living run was spawned.
    pub started: Option<String>,
    pub uptime_seconds: Option<f64>,
    /// RFC 3339: when the next try is due.
    pub retry_at: Option<String>,
    pub retry_in_seconds: Option<f64>,
    pub failures: u32,
    pub failures_limit: u32,
    /// `closed`, `open`, `half-open`.
    pub breaker: String,
    /// One sentence: why it is in this state.
    pub reason: String,
    pub waiting_for: Vec<String>,
    /// Whether it is ready; `null` when its program declares nothing that would show it.
    #[serde(default)]
    pub ready: Option<bool>,
    /// RFC 3339: when a start that is not ready fails.
    #[serde(default)]
    pub gives_up_at: Option<String>,
    /// What the living run says that it does (`STATUS=` of sd_notify).
    #[serde(default)]
    pub status_text: Option<String>,
    pub command: Vec<String>,
    /// Resident memory of the main process now; only where the process was asked for by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processor time of the main process since its start, as for `memory_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
}

/// `GET /v1/programs/{name}`: the processes that the name selects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramView {
    pub schema: u32,
    /// As it was asked for.
    pub name: String,
    pub processes: Vec<ProcessView>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitView {
    /// `code`, `signal` or `unknown`.
    pub kind: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub signal_name: Option<String>,
    pub core_dumped: bool,
    /// RFC 3339.
    pub at: String,
    /// `exited with code 3`, `killed by SIGKILL`.
    pub text: String,
}

/// What a daemon that knows of no disabled programs means.
fn yes() -> bool {
    true
}

/// Body of `POST /v1/start`, `/v1/stop`, `/v1/restart`, `/v1/signal`, `/v1/reload-programs`,
/// `/v1/enable`, `/v1/disable`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActBody {
    /// Processes, programs, `program:*`, `@group`, globs, `all`.
    pub names: Vec<String>,
    /// A duration such as `30s`; absent answers at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// Only for `signal`: `HUP`, `SIGHUP` or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only for `enable` and `disable`: start or stop them as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<bool>,
}

/// Answer to the acts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActView {
    pub schema: u32,
    pub results: Vec<OutcomeView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutcomeView {
    pub name: String,
    /// `done`, `unchanged`, `failed`, `timed-out`.
    pub result: String,
    pub message: String,
    pub process: ProcessView,
}

/// Answer to `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadView {
    pub schema: u32,
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub restarted: Vec<String>,
    pub updated: Vec<String>,
    pub warnings: Vec<String>,
}

/// Answer to `POST /v1/shutdown`, sent when nothing runs any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShutdownView {
    pub schema: u32,
    pub stopped: bool,
}

/// Body of `POST /v1/upgrade`; may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeBody {
    /// Absolute path of the new `mendd`; absent means the file that the daemon was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// How long the new daemon may take to serve before everything goes back, such as `20s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `POST /v1/upgrade`, sent when the check has passed and the switch begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpgradeView {
    pub schema: u32,
    /// Version of the daemon that answers.
    pub from: String,
    /// Version of the new executable.
    pub to: String,
    /// The outcome is the first `daemon` event after this one whose `what` is `upgraded` or
    /// `upgrade-failed`.
    pub event: u64,
}

/// `GET /v1/config`, and `mendctl config show --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    pub schema: u32,
    /// The main file.
    pub file: String,
    pub values: Vec<ConfigValueView>,
}

/// One key as it takes effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigValueView {
    /// `supervisor`, `program.web`, `group.site`.
    pub table: String,
    /// Dotted below the table.
    pub key: String,
    /// Null where the default is the absence of a value.
    pub value: serde_json::Value,
    /// The value as it is written in TOML.
    pub toml: Option<String>,
    /// `file`, `above` (`[defaults.program]` or `[supervisor]`), `variable`, `default`.
    pub from: String,
    pub file: Option<String>,
    pub line: Option<usize>,
    /// The table above, the variable, or the default in words.
    pub words: Option<String>,
    /// The value, or a part of it, is a secret and not shown.
    pub hidden: bool,
}

/// `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    pub schema: u32,
    pub name: String,
    pub version: String,
    pub api: String,
    pub pid: u32,
    pub keeper_pid: u32,
}

/// Body of `PUT /v1/log-level`, and its answer (with the level before).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLevelBody {
    pub level: String,
}

/// One server-sent event of `/v1/events`; the SSE `id` is `id`, the SSE `event` is `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    pub id: u64,
    /// RFC 3339.
    pub at: String,
    /// `state`, `audit`, `check`, `incident`, `alert`, `mode`, `daemon`; `gap` where events are no longer kept.
    pub kind: String,
    pub data: serde_json::Value,
}

/// One line of `GET /v1/logs` with `format=json` (NDJSON).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLineView {
    pub name: String,
    /// `stdout` or `stderr`; merged output is `stdout`.
    pub stream: String,
    /// RFC 3339 with milliseconds: when the daemon saw it.
    pub at: Option<String>,
    /// Where in its log it begins, `SEGMENT:OFFSET`; grows from line to line of one log, and stays
    /// over rotation and restarts.
    pub cursor: String,
    /// The line without its end. Bytes that are not UTF-8 are replaced.
    pub line: String,
}

/// RFC 9457 problem details, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `https://mend.invalid/problems/unknown-name` and the like.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// `GET /v1/plan`: what the files, or a generation, would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    pub schema: u32,
    /// `false` when nothing would change.
    pub changes: bool,
    /// All of it in one line.
    pub summary: String,
    /// Of the files; an apply that is given it refuses other texts.
    pub fingerprint: Option<String>,
    /// In name order; programs that stay as they are are left out.
    pub programs: Vec<ProgramChangeView>,
    /// Of `[supervisor]`, groups and files.
    pub settings: Vec<KeyChangeView>,
    pub warnings: Vec<String>,
    /// What became of the same texts when they were applied before, if they were given up.
    pub given_up: Option<String>,
}

/// What would happen to one program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramChangeView {
    pub name: String,
    /// `start`, `stop`, `restart`, `restart-in-turn` (replica by replica), `update`.
    pub action: String,
    /// The program that it requires and that restarts.
    pub because: Option<String>,
    pub keys: Vec<KeyChangeView>,
}

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyChangeView {
    pub key: String,
    /// `null` when it is not set. Values of environment variables are not shown.
    pub old: Option<String>,
    pub new: Option<String>,
    /// `in-place`, `restart`, `daemon-restart`.
    pub effect: String,
}

/// Body of `POST /v1/apply`; may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyBody {
    /// How long it may take until everything runs, such as `90s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Keep the new configuration also when something does not run.
    #[serde(default)]
    pub no_rollback: bool,
    /// Apply the previous generation instead of the files.
    #[serde(default)]
    pub back: bool,
    /// Apply this generation instead of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Of the plan that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `POST /v1/apply`, sent when it is under way, with `wait` when it has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplyView {
    pub schema: u32,
    pub generation: u64,
    /// `false` when there was nothing to do.
    pub begun: bool,
    /// Progress is in `daemon` events after this one whose `what` is `apply`; the end in one
    /// whose `what` is `applied`, `apply-kept` or `apply-rolled-back`.
    pub event: u64,
    pub plan: PlanView,
    /// How it ended, if that was waited for.
    pub result: Option<GenerationView>,
}

/// `GET /v1/generations`: the configurations that are kept, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationsView {
    pub schema: u32,
    /// The one that counts.
    pub current: Option<u64>,
    /// The one that is being applied.
    pub applying: Option<u64>,
    pub generations: Vec<GenerationView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GenerationView {
    pub number: u64,
    /// RFC 3339.
    pub at: String,
    pub by: String,
    pub uid: Option<u32>,
    pub reason: Option<String>,
    /// `start`, `reload`, `apply`, `rollback`.
    pub how: String,
    /// `applying`, `applied`, `kept`, `rolled-back`, `interrupted`, `rejected`.
    pub outcome: String,
    /// What it changed, in one line.
    pub changes: String,
    /// Why the outcome is what it is.
    pub why: Option<String>,
    /// The generation whose texts these are, after going back.
    pub copy_of: Option<u64>,
}

/// `GET /v1/audit`: who asked for what, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditView {
    pub schema: u32,
    pub requests: Vec<AuditEntryView>,
    /// Why this may not be all: the file cannot be read.
    pub trouble: Option<String>,
}

/// One request for a change, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntryView {
    /// RFC 3339: when it came.
    pub at: String,
    pub user: String,
    /// `null` when nobody stands behind it, as with a signal.
    pub uid: Option<u32>,
    pub pid: Option<i32>,
    /// A hint: the pid may have been another's by the time it was read.
    pub executable: Option<String>,
    /// `stop web db`.
    pub request: String,
    pub reason: Option<String>,
    /// `2 done`, `refused: …`, `denied: …`.
    pub outcome: String,
}

/// `GET /v1/incidents`: what went wrong, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentsView {
    pub schema: u32,
    pub incidents: Vec<IncidentView>,
    /// Why this may not be all: the file cannot be read.
    pub trouble: Option<String>,
}

/// `GET /v1/incidents/{id}`: one incident with its story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentStoryView {
    pub schema: u32,
    pub incident: IncidentView,
    /// In the order in which it happened.
    pub steps: Vec<IncidentStepView>,
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentView {
    pub id: u64,
    /// `web:0`, or `host`.
    pub target: String,
    /// `null` for the host.
    pub program: Option<String>,
    /// RFC 3339.
    pub opened: String,
    /// The sentence that opened it; goes on from the target's name, as all sentences here do.
    pub opening: String,
    /// The check that opened it.
    pub check: Option<String>,
    pub cause: Option<CauseView>,
    /// How many remedies were begun.
    pub remedies: u32,
    /// The remedy that was proven to have helped.
    pub healed_by: Option<String>,
    /// When it was well again; over is an incident only when that has lasted.
    pub recovered: Option<String>,
    pub recovery_seconds: Option<f64>,
    /// `null` while it goes on.
    pub closed: Option<String>,
    /// `healed`, `by-itself`, `stopped`, `removed`, `panic-over`, `unknown`.
    pub closing: Option<String>,
}

/// What an incident was taken for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CauseView {
    /// `out-of-memory`.
    pub word: String,
    /// `guess`, `likely`, `certain`.
    pub confidence: String,
    pub sentence: String,
    pub facts: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentStepView {
    /// RFC 3339.
    pub at: String,
    /// `failed`, `cause`, `began`, `verified`, `recovered`, `closed` and more.
    pub kind: String,
    pub sentence: String,
}
