//! `config history` and `config diff`: the generations of the configuration.

use super::plan;
use crate::api::view::{GenerationView, GenerationsView, PlanView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;
use crate::client::when;

/// Lists the generations, newest first.
pub(crate) async fn list(context: &mut Context) -> Result<Exit, Failure> {
    let answer = context.client.get::<GenerationsView>("/v1/generations").await?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
        return Ok(Exit::Ok);
    }
    let list = answer.value;
    for generation in list.generations.iter().rev() {
        let is_current = list.current == Some(generation.number);
        context.printer.text(&entry(generation, is_current))?;
    }
    if list.generations.is_empty() {
        context.printer.line("no generation is kept")?;
    }
    Ok(Exit::Ok)
}

/// Shows what differs between two generations, or between one and what is active.
pub(crate) async fn diff(
    context: &mut Context,
    from: u64,
    to: Option<u64>,
) -> Result<Exit, Failure> {
    let path = match to {
        Some(to) => format!("/v1/plan?from={from}&to={to}"),
        None => format!("/v1/plan?to={from}"),
    };
    let answer = context.client.get::<PlanView>(&path).await?;
    plan::show(context, &answer)?;
    Ok(if answer.value.changes { Exit::Changes } else { Exit::Ok })
}

fn entry(generation: &GenerationView, is_current: bool) -> String {
    let mark = if is_current { '*' } else { ' ' };
    let how = match (generation.how.as_str(), generation.copy_of) {
        (how, Some(other)) => format!("{how} to {other}"),
        (how, None) => how.to_owned(),
    };
    let uid = generation.uid.map(|uid| format!(" (uid {uid})")).unwrap_or_default();
    let mut text = format!(
        "{mark} {:>3}  {}  {}  {how} by {}{uid}\n",
        generation.number,
        when::date_and_clock(&generation.at),
        generation.outcome,
        generation.by,
    );
    let mut more = |what: &str, value: Option<&str>| {
        for (index, line) in value.unwrap_or_default().lines().enumerate() {
            let lead = if index == 0 { what } else { "" };
            text.push_str(&format!("       {lead}{line}\n"));
        }
    };
    more("", Some(&generation.changes));
    more("reason: ", generation.reason.as_deref());
    more("why: ", generation.why.as_deref());
    text
}
