//! A line on the terminal that shows what a command waits for.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::api::view::{ProcessView, StatusView};
use crate::client::Context;
use crate::client::failure::Failure;
use crate::client::http::with_query;
use crate::client::table::cut;
use crate::client::when;

/// A command that is faster than this shows nothing.
const DELAY: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_millis(120);
const TICKS_PER_LOOK: u32 = 4;
const FRAMES: [&str; 6] = ["⠋", "⠙", "⠸", "⠴", "⠦", "⠇"];
const ASCII_FRAMES: [&str; 4] = ["|", "/", "-", "\\"];

/// Waits for `work`, with a spinner if stderr is a terminal. An interrupt ends the waiting with
/// `interrupted` as the message.
pub(crate) async fn wait_with_progress<T>(
    context: &mut Context,
    what: &str,
    interrupted: &str,
    names: &[String],
    is_done: fn(&ProcessView) -> bool,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut interrupt = context.interrupts.listen();
    let shows = context.printer.look.error_is_terminal && !context.printer.json;
    let started = Instant::now();
    let mut ticker = interval_at(started + DELAY, TICK);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waits_for = String::new();
    let mut tick = 0_u32;
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            () = interrupt.wait() => break Err(Failure::Interrupted(interrupted.to_owned())),
            _ = ticker.tick(), if shows => {
                if tick.is_multiple_of(TICKS_PER_LOOK) {
                    let look = look(context, names, is_done);
                    if let Ok(Some(found)) = tokio::time::timeout(TICK, look).await {
                        waits_for = found;
                    }
                }
                draw(context, tick, what, &waits_for, started.elapsed());
                tick = tick.wrapping_add(1);
            }
        }
    };
    if tick > 0 {
        context.printer.aside("\r\x1b[K");
    }
    result
}

/// Asks which processes are not where they should be.
async fn look(
    context: &Context,
    names: &[String],
    is_done: fn(&ProcessView) -> bool,
) -> Option<String> {
    let path = with_query("/v1/status", names.iter().map(|name| ("name", name.as_str())));
    let status = context.client.get::<StatusView>(&path).await.ok()?.value;
    let describe = |process: &ProcessView| {
        let state = process.state.to_lowercase();
        match process.waiting_for.is_empty() {
            true => format!("{} {state}", process.name),
            false => format!("{} waits for {}", process.name, process.waiting_for.join(", ")),
        }
    };
    let rest = status.programs.iter().filter(|process| !is_done(process));
    Some(rest.map(describe).collect::<Vec<_>>().join("; "))
}

fn draw(context: &mut Context, tick: u32, what: &str, waits_for: &str, elapsed: Duration) {
    let look = context.printer.look;
    let frames: &[&str] = if look.unicode { &FRAMES } else { &ASCII_FRAMES };
    let frame = frames[tick as usize % frames.len()];
    let mut line = format!("{frame} {what} {}", when::short(elapsed));
    if !waits_for.is_empty() {
        line.push_str(&format!(": {waits_for}"));
    }
    let line = cut(&line, look.error_width.unwrap_or(80).saturating_sub(1), look.unicode);
    context.printer.aside(&format!("\r{line}\x1b[K"));
}
