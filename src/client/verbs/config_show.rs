//! `config show`: what takes effect, of a file or of the daemon that runs.

use std::path::{Path, PathBuf};

use crate::api::view::ConfigView;
use crate::api::{config_view, shown_of};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::http::with_query;
use crate::config::show::{select, show, toml};
use crate::config::{self, Severity};

/// Which configuration is meant.
#[derive(Debug, PartialEq, Eq)]
enum Which {
    File(PathBuf),
    Running,
}

pub(super) async fn run(
    context: &mut Context,
    what: &[String],
    secrets: bool,
) -> Result<Exit, Failure> {
    let (which, names) = split(what, &|path| path.is_file());
    let view = match which {
        Which::Running if secrets => {
            let text = "a daemon never shows secrets; name the file to see those you may read";
            return Err(Failure::Usage(text.to_owned()));
        }
        Which::Running => running(context, names).await?,
        Which::File(file) => match of_file(context, &file, names, secrets)? {
            Some(view) => view,
            None => return Ok(Exit::Config),
        },
    };
    if context.printer.json {
        let document = serde_json::to_value(&view).unwrap_or_default();
        context.printer.document(&document)?;
    } else {
        let text = toml(&shown_of(view));
        context.printer.text(&text)?;
    }
    Ok(Exit::Ok)
}

/// Tells the file or `running` from the names that follow.
fn split<'w>(what: &'w [String], is_file: &dyn Fn(&Path) -> bool) -> (Which, &'w [String]) {
    match what {
        [first, names @ ..] if first == "running" => (Which::Running, names),
        [first, names @ ..]
            if first.contains('/') || first.ends_with(".toml") || is_file(Path::new(first)) =>
        {
            (Which::File(first.into()), names)
        }
        names => (Which::File(super::config::default_file()), names),
    }
}

async fn running(context: &mut Context, names: &[String]) -> Result<ConfigView, Failure> {
    let path = with_query("/v1/config", names.iter().map(|name| ("name", name.as_str())));
    let answer = context.client.get::<ConfigView>(&path).await;
    Ok(answer.map_err(Failure::when_asking)?.value)
}

/// Loads a file; `None` after its mistakes have been shown.
fn of_file(
    context: &mut Context,
    file: &Path,
    names: &[String],
    secrets: bool,
) -> Result<Option<ConfigView>, Failure> {
    let env = |name: &str| std::env::var(name).ok();
    let loaded = match config::load(file, &env) {
        Ok(loaded) => loaded,
        Err(report) if report.is_unreadable() => {
            let first = report.diagnostics.iter().find(|found| found.severity == Severity::Error);
            let text = first.map(|found| found.message.clone()).unwrap_or_default();
            return Err(Failure::Failed(text));
        }
        Err(report) if context.printer.json => {
            let text = format!("the configuration has {} mistakes", report.mistakes());
            return Err(Failure::Failed(text));
        }
        Err(report) => {
            let text = report.render(context.printer.look.error_color);
            context.printer.aside(&format!("{}\n", text.trim_end()));
            return Ok(None);
        }
    };
    let shown = select(show(&loaded.sources, &env, secrets), names).map_err(|(name, near)| {
        let help = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        Failure::Usage(format!("`{}` has no `{name}`{help}", file.display()))
    })?;
    Ok(Some(config_view(&file.display().to_string(), shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_name() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let split = |what: &[&str]| {
            let what = words(what);
            let (which, names) = super::split(&what, &|path| path == Path::new("here"));
            (which, names.to_vec())
        };
        let default = Which::File(super::super::config::default_file());
        assert_eq!(split(&[]), (default, vec![]));
        assert_eq!(split(&["running", "web"]), (Which::Running, words(&["web"])));
        assert_eq!(split(&["a/b", "web"]), (Which::File("a/b".into()), words(&["web"])));
        assert_eq!(split(&["x.toml"]), (Which::File("x.toml".into()), vec![]));
        assert_eq!(split(&["here"]), (Which::File("here".into()), vec![]));
        assert_eq!(split(&["web", "db"]).1, words(&["web", "db"]));
    }
}
