//! `log-level LEVEL`.

use std::time::Duration;

use clap::Args;
use hyper::Method;

use crate::api::view::LogLevelBody;
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;

pub(crate) const EXAMPLES: &str =
    "Examples:\n  mendctl log-level\n  mendctl log-level info,mendd::engine=trace";

#[derive(Debug, Clone, Args)]
pub struct LogLevelArgs {
    /// error, warn, info, debug, trace, or a filter such as info,mendd::engine=debug; without it
    /// the level is shown
    pub level: Option<String>,
}

pub(crate) async fn run(context: &mut Context, args: &LogLevelArgs) -> Result<Exit, Failure> {
    let Some(level) = &args.level else {
        let answer = context.client.get::<LogLevelBody>("/v1/log-level").await?;
        if context.printer.json {
            context.printer.raw_document(&answer.raw)?;
        } else {
            context.printer.line(&answer.value.level)?;
        }
        return Ok(Exit::Ok);
    };
    let body = LogLevelBody { level: level.clone() };
    let answer = context
        .client
        .send::<_, LogLevelBody>(Method::PUT, "/v1/log-level", &body, Duration::ZERO)
        .await?;
    if context.printer.json {
        context.printer.raw_document(&answer.raw)?;
    } else {
        let before = answer.value.level;
        context.printer.line(&format!("log level: {level} (was {before})"))?;
    }
    Ok(Exit::Ok)
}
