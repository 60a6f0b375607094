//! Where a check's password comes from.

use super::finding::Finding;
use super::{Asker, file};
use crate::config::{Hidden, Password};

/// A password file with more than this is none.
const MAX_BYTES: usize = 64 * 1024;

/// Reads a password now; it may have changed since it was last needed.
pub(super) async fn read(password: &Password, asker: &Asker<'_>) -> Result<Hidden, Finding> {
    match password {
        Password::Written(text) => Ok(text.clone()),
        Password::Variable(name) => match (asker.variable)(name) {
            Some(value) => Ok(Hidden::new(value)),
            None => {
                Err(Finding::unknown(format!("the variable `{name}` of the password is not set")))
            }
        },
        Password::File(path) => {
            let bytes = file::read(path, MAX_BYTES).await?;
            let text = String::from_utf8_lossy(&bytes);
            let line = text.lines().next().unwrap_or_default().to_owned();
            match line.is_empty() {
                true => {
                    let shown = path.display();
                    Err(Finding::unknown(format!("the password file `{shown}` is empty")))
                }
                false => Ok(Hidden::new(line)),
            }
        }
    }
}
