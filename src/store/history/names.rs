//! Numbers for the names of checks and series, which would otherwise be in every row.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::told;
use crate::core::care::CheckId;

/// Most names that are remembered; beyond it they are looked up again.
const MAX_REMEMBERED: usize = 20_000;

/// The numbers that are known.
#[derive(Debug, Default)]
pub(super) struct Names {
    checks: BTreeMap<CheckId, i64>,
    series: BTreeMap<String, i64>,
}

impl Names {
    pub(super) fn check(
        &mut self,
        connection: &Connection,
        check: &CheckId,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.checks.get(check) {
            return Ok(*id);
        }
        let target = told::target(&check.target);
        let name = check.check.as_str();
        let known = connection
            .prepare_cached("SELECT id FROM checks WHERE target = ?1 AND name = ?2")?
            .query_row(params![target, name], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                connection
                    .prepare_cached(
                        "INSERT INTO checks (target, name, program) VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![target, name, told::program(&check.target)])?;
                connection.last_insert_rowid()
            }
        };
        if self.checks.len() >= MAX_REMEMBERED {
            self.checks.clear();
        }
        self.checks.insert(check.clone(), id);
        Ok(id)
    }

    pub(super) fn series(&mut self, connection: &Connection, name: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.series.get(name) {
            return Ok(*id);
        }
        let known = connection
            .prepare_cached("SELECT id FROM series WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                connection
                    .prepare_cached("INSERT INTO series (name) VALUES (?1)")?
                    .execute([name])?;
                connection.last_insert_rowid()
            }
        };
        if self.series.len() >= MAX_REMEMBERED {
            self.series.clear();
        }
        self.series.insert(name.to_owned(), id);
        Ok(id)
    }
}
