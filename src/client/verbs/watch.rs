//! `watch`: events as they happen, one line each, resumed after a restart of the daemon.

use anstyle::Style;
use clap::Args;
use serde_json::Value;

use super::events::{Events, Step};
use super::follow::printable;
use crate::api::view::EventView;
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::printer::{Look, paint};
use crate::client::when;

pub(crate) const EXAMPLES: &str = "\
Examples:
  mendctl watch
  mendctl watch --json --kind state | jq .data";

#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// Only events of this kind: state, check, incident, alert, mode, audit, daemon; what was lost is always said
    #[arg(long, value_name = "KIND")]
    pub kind: Vec<String>,
}

pub(crate) async fn run(context: &mut Context, args: &WatchArgs) -> Result<Exit, Failure> {
    let mut interrupt = context.interrupts.listen();
    let mut events = Events::open(&context.client).await?;
    loop {
        let step = tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(Exit::Interrupted),
            step = events.next() => step?,
        };
        match step {
            Step::Event { event, .. } if !wants(args, &event) => {}
            Step::Event { raw, .. } if context.printer.json => {
                context.printer.raw_document(raw.replace('\n', " ").as_bytes())?;
            }
            Step::Event { event, .. } => {
                let line = render(&event, &context.printer.look);
                context.printer.line(&line)?;
            }
            Step::Lost => context.printer.notice("mendd is gone, waiting for it to return"),
            Step::Again => context.printer.notice("mendd is back, going on"),
        }
    }
}

fn wants(args: &WatchArgs, event: &EventView) -> bool {
    args.kind.is_empty() || event.kind == "gap" || args.kind.contains(&event.kind)
}

/// Writes `12:00:01 state    web:0 STARTING -> RUNNING ready pid=7`: the members that people look
/// for first, the others behind.
fn render(event: &EventView, look: &Look) -> String {
    let clock = paint(look.color, Style::new().dimmed(), &when::clock(&event.at));
    let kind = format!("{:<8}", event.kind);
    let mut words = Vec::new();
    let mut rest = event.data.clone();
    let mut take = |key: &str| {
        let value = rest.as_object_mut()?.remove(key)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    words.extend(
        ["process", "target", "check", "by", "request", "what"].into_iter().filter_map(&mut take),
    );
    let arrow = if look.unicode { "→" } else { "->" };
    let (from, to) = (take("from"), take("to"));
    match (from, to) {
        (Some(from), Some(to)) => words.push(format!("{from} {arrow} {to}")),
        (from, to) => words.extend(from.into_iter().chain(to)),
    }
    for key in ["outcome", "detail", "sentence"] {
        words.extend(take(key).filter(|text| !text.is_empty() && text != "null"));
    }
    if let Value::Object(members) = &rest {
        let members = members.iter().filter(|(_, value)| !value.is_null());
        words.extend(members.map(|(key, value)| match value.as_str() {
            Some(text) => format!("{key}={text}"),
            None => format!("{key}={value}"),
        }));
    } else if !rest.is_null() {
        words.push(rest.to_string());
    }
    format!("{clock} {kind} {}", printable(&words.join(" "))).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line_with_the_name_first() {
        let event = EventView {
            id: 1,
            at: "not a time".to_owned(),
            kind: "state".to_owned(),
            data: json!({ "pid": 7, "from": "STARTING", "to": "RUNNING", "process": "web:0",
                          "detail": "ready", "exit": null }),
        };
        let expected = "not a time state    web:0 STARTING -> RUNNING ready pid=7";
        assert_eq!(render(&event, &Look::plain()), expected);
    }
}
