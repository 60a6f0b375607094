//! What a monitor reads of a real daemon: the page is held to the rules of OpenMetrics.

use std::collections::{BTreeMap, BTreeSet};

use mendd::api::view::{CheckHistoryView, Problem, StatisticsView};
use nix::sys::signal::Signal;

use crate::harness::{Daemon, wait_for};
use crate::proc;

const PROGRAMS: &str = "\
    [defaults.program]\nstart_period = 0\n\
    [program.up]\ncommand = ['sh', '-c', 'echo hello; exec sleep 100000']\n\
    [[program.up.check]]\nname = 'looks'\nexec = ['true']\ninterval = '1s'\n\
    [program.done]\ncommand = ['true']\nrestart = 'never'\n";

/// A page that keeps the rules: samples by their whole line up to the value.
struct Page(BTreeMap<String, f64>);

impl Page {
    #[track_caller]
    fn read(daemon: &Daemon) -> Self {
        let answer = daemon.http("GET", "/metrics", None);
        assert_eq!(answer.status, 200, "{answer:?}");
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        assert_eq!(answer.content_type, kind);
        Self::parse(&answer.body).unwrap_or_else(|why| panic!("{why}\n{}", answer.body))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with `# EOF`")?;
        let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
        let mut family = Family::default();
        for line in body.lines() {
            let wrong = |why: &str| format!("{why}: `{line}`");
            if let Some(described) = line.strip_prefix("# ") {
                let mut words = described.splitn(3, ' ');
                let (what, name, rest) = (words.next(), words.next(), words.next());
                let name = name.ok_or_else(|| wrong("no name"))?;
                let rest = rest.filter(|rest| !rest.is_empty()).ok_or_else(|| wrong("no text"))?;
                if name != family.name {
                    family.check()?;
                    if !families.insert(name.to_owned()) {
                        return Err(wrong("a family comes twice, or in pieces"));
                    }
                    family = Family { name: name.to_owned(), ..Family::default() };
                }
                if family.has_samples {
                    return Err(wrong("described behind its samples"));
                }
                let place = match what {
                    Some("TYPE") => &mut family.kind,
                    Some("UNIT") => &mut family.unit,
                    Some("HELP") => &mut family.help,
                    _ => return Err(wrong("neither TYPE nor UNIT nor HELP")),
                };
                if place.replace(rest.to_owned()).is_some() {
                    return Err(wrong("said twice"));
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').ok_or_else(|| wrong("no value"))?;
            let value = value.parse::<f64>().map_err(|_| wrong("no number"))?;
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').ok_or("no brace")?),
                None => (series, ""),
            };
            let labels = read_labels(labels).ok_or_else(|| wrong("bad labels"))?;
            family.has_samples = true;
            family.check_sample(name, &labels, value).map_err(|why| wrong(&why))?;
            let mut sorted: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            sorted.sort();
            if samples.insert(format!("{name}{{{}}}", sorted.join(",")), value).is_some() {
                return Err(wrong("a series comes twice"));
            }
        }
        family.check()?;
        Ok(Self(samples))
    }

    /// Returns the value of the series of this name that has all these labels.
    fn get(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64, String> {
        let has = |series: &str| {
            series.starts_with(&format!("{name}{{"))
                && labels.iter().all(|(name, value)| {
                    let label = format!("{name}={value:?}");
                    series.contains(&format!("{{{label}")) || series.contains(&format!(",{label}"))
                })
        };
        let mut found = self.0.iter().filter(|(series, _)| has(series));
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(*value),
            (None, _) => Err(format!("no {name} {labels:?} in {:#?}", self.0)),
            (Some(_), Some(_)) => Err(format!("several {name} {labels:?}")),
        }
    }

    #[track_caller]
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|why| panic!("{why}"))
    }
}

#[derive(Default)]
struct Family {
    name: String,
    kind: Option<String>,
    unit: Option<String>,
    help: Option<String>,
    has_samples: bool,
}

impl Family {
    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Ok(());
        }
        let name = &self.name;
        let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
        if !name.starts_with("mend_") || !name.chars().all(is_plain) {
            return Err(format!("`{name}` is a strange name"));
        }
        let kind = self.kind.as_deref().ok_or_else(|| format!("`{name}` has no TYPE"))?;
        if self.help.is_none() {
            return Err(format!("`{name}` has no HELP"));
        }
        for suffix in ["_total", "_info", "_created", "_count", "_sum", "_bucket"] {
            if name.ends_with(suffix) {
                return Err(format!("`{name}` ends with the suffix of a sample"));
            }
        }
        match &self.unit {
            Some(unit) if !name.ends_with(&format!("_{unit}")) => {
                Err(format!("`{name}` does not end with its unit {unit}"))
            }
            Some(_) if matches!(kind, "info" | "stateset") => {
                Err(format!("`{name}` may have no unit"))
            }
            None if name.ends_with("_seconds") || name.ends_with("_bytes") => {
                Err(format!("`{name}` has no UNIT"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_sample(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        value: f64,
    ) -> Result<(), String> {
        let suffix = name.strip_prefix(self.name.as_str()).ok_or("of another family")?;
        let is_flag = value == 0.0 || value == 1.0;
        match (self.kind.as_deref(), suffix) {
            (Some("gauge"), "") => Ok(()),
            (Some("counter"), "_total") if value >= 0.0 => Ok(()),
            (Some("info"), "_info") if value == 1.0 => Ok(()),
            (Some("stateset"), "") if is_flag && labels.contains_key(&self.name) => Ok(()),
            (kind, _) => Err(format!("no sample of a {kind:?}")),
        }
    }
}

/// Reads `a="b",c="d"`; `None` when it is anything else.
fn read_labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
        if name.is_empty() || !name.chars().all(is_plain) {
            return None;
        }
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    _ => return None,
                }),
                (_, c) => value.push(c),
            }
        };
        if labels.insert(name.to_owned(), value).is_some() {
            return None;
        }
        rest = match &after[end + 1..] {
            "" => "",
            more => more.strip_prefix(',').filter(|more| !more.is_empty())?,
        };
    }
    Some(labels)
}

#[test]
fn a_monitor_reads_what_the_status_says() {
    let daemon = Daemon::start(PROGRAMS);
    let pid = daemon.pid("up");
    daemon.wait_state("done", "EXITED");
    let page = wait_for("the check to have run, and the output to be in its log", || {
        let page = Page::read(&daemon);
        page.get("mend_check_latency_seconds", &[("target", "up"), ("check", "looks")])?;
        match page.value("mend_capture_written_bytes_total", &[]) {
            bytes if bytes >= 6.0 => Ok(page),
            bytes => Err(format!("{bytes} bytes")),
        }
    });
    assert_eq!(page.value("mend_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(page.value("mend_process_up", &[("process", "up")]), 1.0);
    assert_eq!(page.value("mend_process_up", &[("process", "done")]), 0.0);
    assert_eq!(page.value("mend_process_last_exit_code", &[("process", "done")]), 0.0);
    assert!(page.get("mend_process_last_exit_code", &[("process", "up")]).is_err());
    let state = |state| [("process", "done"), ("mend_process_state", state)];
    assert_eq!(page.value("mend_process_state", &state("EXITED")), 1.0);
    assert_eq!(page.value("mend_process_state", &state("RUNNING")), 0.0);
    let verdict = [("check", "looks"), ("target", "up"), ("mend_check_verdict", "pass")];
    assert_eq!(page.value("mend_check_verdict", &verdict), 1.0);
    assert!(page.value("mend_check_runs_total", &[("verdict", "pass")]) >= 1.0);
    assert_eq!(page.value("mend_mode", &[("mend_mode", "normal")]), 1.0);
    for part in ["keeper", "brain"] {
        let part = [("part", part)];
        assert!(page.value("mend_daemon_resident_memory_bytes", &part) > 100_000.0);
        assert!(page.value("mend_daemon_private_memory_bytes", &part) > 1_000.0);
        assert!(page.value("mend_daemon_open_descriptors", &part) >= 3.0);
    }
    let restarts = page.value("mend_process_restarts_total", &[("process", "up")]);
    let incidents = page.value("mend_incidents_total", &[]);
    proc::send(pid, Signal::SIGKILL);
    daemon.new_pid("up", pid);
    let page = Page::read(&daemon);
    assert_eq!(page.value("mend_process_restarts_total", &[("process", "up")]), restarts + 1.0);
    assert_eq!(page.value("mend_process_last_exit_signal", &[("process", "up")]), 9.0);
    wait_for("the incident to be counted", || {
        match Page::read(&daemon).value("mend_incidents_total", &[]) {
            now if now == incidents + 1.0 => Ok(()),
            now => Err(format!("{now}, {incidents} before")),
        }
    });
    // It is the history's number: another brain goes on with it.
    daemon.kill_brain();
    assert_eq!(Page::read(&daemon).value("mend_incidents_total", &[]), incidents + 1.0);
}

#[test]
fn ready_is_who_runs_all_that_is_enabled_and_healthy_who_answers() {
    let daemon = Daemon::start(PROGRAMS);
    daemon.pid("up");
    daemon.wait_state("done", "EXITED");
    assert_eq!(daemon.http("GET", "/readyz", None).status, 200);
    daemon.ctl_ok(&["stop", "up"]);
    let answer = daemon.http("GET", "/readyz", None);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json::<Problem>().detail, "not ready: up (STOPPED)");
    assert_eq!(daemon.http("GET", "/healthz", None).status, 200);
    daemon.ctl_ok(&["disable", "up"]);
    assert_eq!(daemon.http("GET", "/readyz", None).status, 200);
}

#[test]
fn what_healing_has_achieved_and_what_a_check_has_found_is_told() {
    let daemon = Daemon::start(PROGRAMS);
    let pid = daemon.pid("up");
    assert_eq!(daemon.ctl_ok(&["stats", "nobody"]).err, "");
    proc::send(pid, Signal::SIGKILL);
    daemon.new_pid("up", pid);
    let statistics = wait_for("it to be well again", || {
        let found: StatisticsView = daemon.http("GET", "/v1/statistics?program=up", None).json();
        match found.mean_recovery_seconds {
            Some(_) => Ok(found),
            None => Err(format!("{found:?}")),
        }
    });
    let up = &statistics.targets[0];
    assert_eq!((up.target.as_str(), up.incidents), ("up", 1));
    assert!(up.down_seconds > 0.0 && up.availability.is_some_and(|part| part < 1.0), "{up:?}");
    let shown = daemon.ctl_ok(&["stats"]);
    let row = shown.out.lines().find(|line| line.starts_with("up "));
    assert!(row.is_some_and(|row| row.contains('%')), "{shown:#?}");
    let json = daemon.ctl_ok(&["stats", "up", "--since", "1h", "--json"]);
    let view: StatisticsView = serde_json::from_str(&json.out).expect("a StatisticsView");
    assert_eq!(view.incidents, 1);

    let found = wait_for("a result in the history", || {
        let found: CheckHistoryView =
            daemon.http("GET", "/v1/checks/up/looks/results", None).json();
        if found.results.is_empty() { Err(format!("{found:?}")) } else { Ok(found) }
    });
    assert_eq!(found.results[0].verdict, "pass");
    let shown = daemon.ctl_ok(&["check", "show", "up/looks"]);
    assert!(shown.out.contains("   history: "), "{shown:#?}");
    let answer = daemon.http("GET", "/v1/checks/up/nothing/results", None);
    assert_eq!(answer.status, 422, "{answer:?}");
}

/// The test itself: it would see what is wrong.
#[test]
fn a_page_that_breaks_a_rule_is_refused() {
    let head = "# TYPE mend_a gauge\n# HELP mend_a A.\n";
    let good = format!("{head}mend_a{{b=\"x\\\"y\"}} 1\n# EOF\n");
    assert!(Page::parse(&good).is_ok());
    for bad in [
        format!("{head}mend_a 1\n"),
        format!("{head}mend_a 1\nmend_a 2\n# EOF\n"),
        format!("{head}mend_a_total 1\n# EOF\n"),
        format!("{head}mend_a{{b=\"x}} 1\n# EOF\n"),
        format!("{head}mend_a{{b=\"x\",}} 1\n# EOF\n"),
        format!("{head}mend_b 1\n# EOF\n"),
        "# TYPE mend_a gauge\nmend_a 1\n# EOF\n".to_owned(),
        "# TYPE mend_a_bytes gauge\n# HELP mend_a_bytes A.\n# EOF\n".to_owned(),
        format!("{head}# TYPE mend_c gauge\n# HELP mend_c C.\n{head}# EOF\n"),
    ] {
        assert!(Page::parse(&bad).is_err(), "accepted:\n{bad}");
    }
}
