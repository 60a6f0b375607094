//! `incidents bundle`: everything about one incident in one file.
//!
//! It is made of the daemon's answers alone, so that nobody gets more than they may see. What
//! looks like a secret is taken out here as well: what programs print, and what was written down
//! of commands, has not been through the configuration's own filter.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::incidents::render_story;
use crate::api::view::{ChecksView, IncidentStoryView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::with_query;
use crate::client::printer::Look;
use crate::config::{hidden_words, without_secrets};

pub(crate) const EXAMPLES: &str = "\
The file holds the story of the incident with the facts that were found, the status, the reasons,
the configuration, the checks with their history, the last lines of output, and the versions.
What looks like a secret is left out; look through the output before you give it away.

Examples:
  mendctl incidents bundle 12
  mendctl incidents bundle 12 -o /tmp/web.tar.zst";

/// Lines of each of the two outputs.
const LINES: &str = "200";

/// Results of each check.
const RESULTS: &str = "1000";

/// Most bytes of output: a line may be as long as a program likes.
const MAX_OUTPUT: usize = 16 << 20;

/// Of zstd, from 1 to 22.
const LEVEL: i32 = 9;

#[derive(Debug, Clone, Args)]
pub struct BundleArgs {
    /// Its number
    #[arg(value_name = "ID")]
    pub id: u64,
    /// Where to write it [default: incident-ID.tar.zst]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What goes into the file.
struct Bundle {
    /// The directory that everything is in.
    root: String,
    files: Vec<(String, Vec<u8>)>,
    /// What the daemon would not tell, and why.
    missing: Vec<String>,
}

pub(crate) async fn run(context: &mut Context, args: &BundleArgs) -> Result<Exit, Failure> {
    let id = args.id;
    let path = format!("/v1/incidents/{id}");
    let answer = context.client.get::<IncidentStoryView>(&path).await;
    let answer = answer.map_err(Failure::when_asking)?;
    let root = format!("incident-{id}");
    let output = args.output.clone().unwrap_or_else(|| format!("{root}.tar.zst").into());
    let mut bundle = Bundle { root, files: Vec::new(), missing: Vec::new() };
    let story = render_story(&answer.value, &Look::plain());
    bundle.text("incident.txt", &story);
    bundle.document("incident.json", &answer.raw)?;
    bundle.collect(context, &answer.value).await?;
    bundle.describe(id, &story);
    let packed = bundle.pack().map_err(|error| failed(&output, &error))?;
    write_new(&output, &packed).map_err(|error| failed(&output, &error))?;
    let shown = output.display();
    if context.printer.json {
        let files: Vec<&String> = bundle.files.iter().map(|(name, _)| name).collect();
        let document = json!({
            "schema": 1, "incident": id, "file": shown.to_string(), "bytes": packed.len(),
            "files": files, "missing": bundle.missing,
        });
        context.printer.document(&document)?;
        return Ok(Exit::Ok);
    }
    context.printer.line(&format!("{shown}: {} files", bundle.files.len()))?;
    for missing in &bundle.missing {
        context.printer.notice(&format!("warning: without {missing}"));
    }
    Ok(Exit::Ok)
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    let is_there = error.kind() == io::ErrorKind::AlreadyExists;
    Failure::Failed(if is_there {
        format!("`{path}` exists already; name another file with --output")
    } else {
        format!("cannot write `{path}`: {error}")
    })
}

impl Bundle {
    /// Asks for everything but the incident itself.
    async fn collect(
        &mut self,
        context: &Context,
        story: &IncidentStoryView,
    ) -> Result<(), Failure> {
        let target = story.incident.target.as_str();
        let program = story.incident.program.as_deref();
        let config = with_query("/v1/config", program.map(|name| ("name", name)));
        let checks = with_query("/v1/checks", [("name", target)]);
        let wanted = [
            ("version.json", "/v1/version".to_owned()),
            ("status.json", "/v1/status".to_owned()),
            ("why.json", with_query("/v1/why", [("name", target)])),
            ("config.json", config),
            ("checks.json", checks.clone()),
        ];
        for (name, path) in wanted {
            self.fetch(context, name, &path).await?;
        }
        let checks = match context.client.get::<ChecksView>(&checks).await {
            Ok(answer) => answer.value.checks,
            // That was said above.
            Err(Failure::Problem(_)) => Vec::new(),
            Err(failure) => return Err(failure),
        };
        for check in checks {
            let path = format!("/v1/checks/{}/{}/results", check.target, check.check);
            let path = with_query(&path, [("limit", RESULTS)]);
            self.fetch(context, &format!("checks/{}.json", check.check), &path).await?;
        }
        if let Some(program) = program {
            for stream in ["stdout", "stderr"] {
                self.fetch_output(context, program, stream).await?;
            }
        }
        Ok(())
    }

    async fn fetch(&mut self, context: &Context, name: &str, path: &str) -> Result<(), Failure> {
        match context.client.get::<Value>(path).await {
            Ok(answer) => self.document(name, &answer.raw),
            // Of a program that is gone, or that this user may not see, the rest is worth having.
            Err(Failure::Problem(problem)) => {
                self.missing.push(format!("{name}: {}", problem.detail));
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    async fn fetch_output(
        &mut self,
        context: &Context,
        program: &str,
        stream: &str,
    ) -> Result<(), Failure> {
        let name = format!("logs/{stream}.log");
        let query = [
            ("name", program),
            ("stream", stream),
            ("lines", LINES),
            ("format", "text"),
            ("timestamps", "1"),
            ("prefix", "1"),
        ];
        let mut pieces = match context.client.stream(&with_query("/v1/logs", query), None).await {
            Ok(pieces) => pieces,
            Err(Failure::Problem(problem)) => {
                self.missing.push(format!("{name}: {}", problem.detail));
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.piece().await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > MAX_OUTPUT {
                bytes.truncate(MAX_OUTPUT);
                self.missing.push(format!("the rest of {name}: it is longer than 16 MiB"));
                break;
            }
        }
        if !bytes.is_empty() {
            self.text(&name, &String::from_utf8_lossy(&bytes));
        }
        Ok(())
    }

    /// Adds a document of the daemon's, laid out for people.
    fn document(&mut self, name: &str, raw: &[u8]) -> Result<(), Failure> {
        let wrong = |error: serde_json::Error| Failure::Protocol(error.to_string());
        let value: Value = serde_json::from_slice(raw).map_err(wrong)?;
        let mut bytes = serde_json::to_vec_pretty(&without_secrets_in(value)).map_err(wrong)?;
        bytes.push(b'\n');
        self.files.push((name.to_owned(), bytes));
        Ok(())
    }

    fn text(&mut self, name: &str, text: &str) {
        let mut clean = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            clean.push_str(&without_secrets(line).unwrap_or_else(|| line.to_owned()));
        }
        self.files.push((name.to_owned(), clean.into_bytes()));
    }

    /// Adds the page that says what all of it is.
    fn describe(&mut self, id: u64, story: &str) {
        let headline = story.lines().next().unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut text = format!(
            "Incident {id}: {headline}\n\nMade at {} by mendctl {} on Linux {}.\n\n\
             What looks like a secret is replaced by ***. That goes by the names of options and \
             by passwords\nin addresses; a secret that a program prints by itself is not \
             recognised.\n\n",
            Timestamp::now(),
            env!("CARGO_PKG_VERSION"),
            kernel.trim(),
        );
        // Writing to a string cannot fail.
        for (name, bytes) in &self.files {
            let _always_works = writeln!(text, "{name} ({} bytes)", bytes.len());
        }
        for missing in &self.missing {
            let _always_works = writeln!(text, "missing: {missing}");
        }
        self.text("README.txt", &text);
    }

    fn pack(&self) -> io::Result<Vec<u8>> {
        let encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
        let mut archive = tar::Builder::new(encoder);
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        for (name, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(now);
            archive.append_data(&mut header, format!("{}/{name}", self.root), bytes.as_slice())?;
        }
        archive.into_inner()?.finish()
    }
}

/// Takes out what looks like a secret, in every text of a document.
fn without_secrets_in(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_secrets(&text).unwrap_or(text)),
        Value::Array(items) => {
            let words: Option<Vec<String>> =
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            match words {
                // A command: the word after `--password` is one, too.
                Some(words) => hidden_words(&words).into_iter().map(Value::String).collect(),
                None => items.into_iter().map(without_secrets_in).collect(),
            }
        }
        Value::Object(members) => {
            let clean = |(name, value)| (name, without_secrets_in(value));
            Value::Object(members.into_iter().map(clean).collect())
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

/// Writes a file that was not there before, which only its owner may read.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file: File = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(bytes);
    if written.is_err() {
        // Half a bundle is of no use to anybody.
        let _ = fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::client::client_tests::mendctl;
    use crate::client::fake_daemon::{FakeDaemon, Reply};

    const SECRET: &str = "s3cret";

    fn daemon() -> FakeDaemon {
        FakeDaemon::start(|seen| {
            let document = match seen.uri.split('?').next().unwrap_or_default() {
                "/v1/incidents/12" => json!({
                    "schema": 1, "trouble": null,
                    "incident": {
                        "id": 12, "target": "web:0", "program": "web", "opened": "then",
                        "opening": "was killed", "check": null, "remedies": 0,
                        "cause": { "word": "killed", "confidence": "certain",
                            "sentence": "was killed", "facts": [format!("--token={SECRET}")] },
                        "healed_by": null, "recovered": null, "recovery_seconds": null,
                        "closed": null, "closing": null,
                    },
                    "steps": [{ "at": "then", "kind": "ended",
                        "sentence": format!("ran redis://me:{SECRET}@db") }],
                }),
                "/v1/status" => json!({ "command": ["web", "--password", SECRET, "-v"] }),
                "/v1/checks" => json!({ "schema": 1, "checks": [] }),
                "/v1/logs" if seen.uri.contains("stderr") => return Reply::Text(String::new()),
                "/v1/logs" => return Reply::Text(format!("a\nPASSWORD={SECRET} b\nc\n")),
                "/v1/config" => {
                    let problem = json!({ "type": "x/unknown-name", "title": "x", "status": 404,
                        "detail": "no program is called `web`" });
                    return Reply::Json(404, problem.to_string());
                }
                _ => json!({}),
            };
            Reply::Json(200, document.to_string())
        })
    }

    fn unpack(path: &Path) -> BTreeMap<String, String> {
        let decoder = zstd::stream::read::Decoder::new(File::open(path).unwrap()).unwrap();
        let mut archive = tar::Archive::new(decoder);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(files.insert(name, text).is_none());
        }
        files
    }

    #[tokio::test]
    async fn a_bundle_holds_what_there_is_says_what_is_missing_and_no_secret() {
        let (daemon, place) = (daemon(), tempfile::tempdir().unwrap());
        let path = place.path().join("it.tar.zst");
        let command = format!("incidents bundle 12 -o {}", path.display());
        let shown = mendctl(&daemon, &command).await;
        assert_eq!(shown.exit, Exit::Ok, "{}", shown.error);
        assert!(shown.error.contains("without config.json: no program is called"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = unpack(&path);
        let names: Vec<&str> =
            files.keys().map(|name| name.strip_prefix("incident-12/").unwrap()).collect();
        let expected = [
            "README.txt",
            "checks.json",
            "incident.json",
            "incident.txt",
            "logs/stdout.log",
            "status.json",
            "version.json",
            "why.json",
        ];
        assert_eq!(names, expected);
        for (name, text) in &files {
            assert!(!text.contains(SECRET), "{name}: {text}");
        }
        assert_eq!(files["incident-12/logs/stdout.log"], "a\nPASSWORD=*** b\nc\n");
        assert!(files["incident-12/incident.txt"].contains("redis://me:***@db"));
        assert!(files["incident-12/README.txt"].contains("missing: config.json"));

        let again = mendctl(&daemon, &command).await;
        assert_eq!(again.exit, Exit::Failed);
        assert!(again.error.contains("exists already"), "{}", again.error);
    }
}
