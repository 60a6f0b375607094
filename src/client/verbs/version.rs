//! `version`: client and daemon.

use serde_json::{Value, json};

use crate::api::view::{SCHEMA, VersionView};
use crate::client::Context;
use crate::client::exit::Exit;
use crate::client::failure::Failure;

pub(crate) async fn run(context: &mut Context) -> Result<Exit, Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let answer = context.client.get::<VersionView>("/v1/version").await;
    if context.printer.json {
        let daemon = match &answer {
            Ok(answer) => serde_json::from_slice(&answer.raw).unwrap_or(Value::Null),
            Err(_) => Value::Null,
        };
        let document = json!({ "schema": SCHEMA, "client": { "version": own }, "daemon": daemon });
        context.printer.document(&document)?;
    } else {
        context.printer.line(&format!("mendctl {own}"))?;
    }
    match answer {
        Ok(answer) => {
            let view = answer.value;
            if !context.printer.json {
                let pids = format!("pid {}, keeper {}", view.pid, view.keeper_pid);
                context.printer.line(&format!("{} {} ({pids})", view.name, view.version))?;
            }
            context.compare_version(&view.version, view.schema);
            Ok(Exit::Ok)
        }
        Err(failure) => {
            context.printer.notice(&failure.whole_text());
            Ok(failure.exit())
        }
    }
}
