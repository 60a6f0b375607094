//! How `mendd` tells its own next image what it is: internal words before `--` on the command
//! line, the operator's options after it.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

/// First argument of a keeper image.
pub const KEEPER: &str = "@keeper";

/// First argument of a brain image.
pub const BRAIN: &str = "@brain";

/// What a keeper image is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeeperArguments {
    pub runtime_dir: PathBuf,
    /// The lock on the runtime directory, held over the exec.
    pub lock: RawFd,
    /// Soft and hard `RLIMIT_NOFILE` before the daemon raised it: what programs start with.
    pub nofile: (u64, u64),
    /// A memfd with the table of the image before (upgrade).
    pub table: Option<RawFd>,
    /// The brain that serves already (upgrade): its pid and our end of its message socket.
    pub brain: Option<(u32, RawFd)>,
    /// Only try whether everything here is understood, touching nothing.
    pub rehearsal: bool,
    /// A message socket on which an orphaned brain hands over.
    pub handover: Option<RawFd>,
    /// The operator's options, passed on to every brain.
    pub options: Vec<OsString>,
}

/// What a brain image is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BrainArguments {
    pub runtime_dir: PathBuf,
    /// The message socket to the keeper.
    pub socket: RawFd,
    pub nofile: (u64, u64),
    /// The daemon as a whole has just been started: the configuration file counts, not only what
    /// was active.
    pub cold: bool,
    pub options: Vec<OsString>,
}

/// The internal words of an image that are not understood, which only a mistake of ours makes.
#[derive(Debug, thiserror::Error)]
#[error("the internal argument `{0}` is not understood")]
pub struct ArgumentError(String);

fn word(key: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(key);
    word.push("=");
    word.push(value);
    word
}

fn number(key: &str, value: impl ToString) -> OsString {
    word(key, OsStr::new(&value.to_string()))
}

fn finish(mut words: Vec<OsString>, options: &[OsString]) -> Vec<OsString> {
    words.push("--".into());
    words.extend(options.iter().cloned());
    words
}

/// Returns the argument list of an image that calls itself `name`.
fn command_line(name: &str, words: Vec<OsString>) -> io::Result<Vec<CString>> {
    let words = std::iter::once(name.into()).chain(words);
    words.map(|word| CString::new(word.into_vec()).map_err(io::Error::from)).collect()
}

/// The words before `--` as pairs, and the options after it.
struct Parsed {
    pairs: Vec<(String, OsString)>,
    options: Vec<OsString>,
}

impl Parsed {
    fn new(mut words: impl Iterator<Item = OsString>) -> Result<Self, ArgumentError> {
        let mut pairs = Vec::new();
        for word in words.by_ref() {
            if word == "--" {
                break;
            }
            let bytes = word.as_bytes();
            let Some(equals) = bytes.iter().position(|byte| *byte == b'=') else {
                return Err(ArgumentError(word.to_string_lossy().into_owned()));
            };
            let key = String::from_utf8_lossy(&bytes[..equals]).into_owned();
            pairs.push((key, OsString::from_vec(bytes[equals + 1..].to_vec())));
        }
        Ok(Self { pairs, options: words.collect() })
    }

    fn take(&self, key: &str) -> Option<&OsStr> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_os_str())
    }

    fn path(&self, key: &str) -> Result<PathBuf, ArgumentError> {
        self.take(key).map(PathBuf::from).ok_or_else(|| ArgumentError(key.to_owned()))
    }

    fn fd(&self, key: &str) -> Result<Option<RawFd>, ArgumentError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let text = value.to_string_lossy();
        text.parse().map(Some).map_err(|_| ArgumentError(format!("{key}={text}")))
    }

    fn needed_fd(&self, key: &str) -> Result<RawFd, ArgumentError> {
        self.fd(key)?.ok_or_else(|| ArgumentError(key.to_owned()))
    }

    /// Reads `NUMBER:NUMBER`.
    fn pair<A: FromStr, B: FromStr>(&self, key: &str) -> Result<Option<(A, B)>, ArgumentError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let text = value.to_string_lossy();
        text.split_once(':')
            .and_then(|(first, second)| Some((first.parse().ok()?, second.parse().ok()?)))
            .map(Some)
            .ok_or_else(|| ArgumentError(format!("{key}={text}")))
    }

    fn nofile(&self) -> Result<(u64, u64), ArgumentError> {
        self.pair("nofile")?.ok_or_else(|| ArgumentError("nofile".to_owned()))
    }
}

impl KeeperArguments {
    /// Returns the words after the program's name.
    pub fn to_words(&self) -> Vec<OsString> {
        let mut words = vec![
            KEEPER.into(),
            word("runtime", self.runtime_dir.as_os_str()),
            number("lock", self.lock),
            word("nofile", OsStr::new(&format!("{}:{}", self.nofile.0, self.nofile.1))),
        ];
        for (key, fd) in [("table", self.table), ("handover", self.handover)] {
            words.extend(fd.map(|fd| number(key, fd)));
        }
        if let Some((pid, socket)) = self.brain {
            words.push(word("brain", OsStr::new(&format!("{pid}:{socket}"))));
        }
        if self.rehearsal {
            words.push(number("rehearsal", 1));
        }
        finish(words, &self.options)
    }

    /// Returns the whole argument list of a keeper image.
    ///
    /// # Errors
    ///
    /// For a NUL byte, which no word of a command line can contain.
    pub fn to_argv(&self) -> io::Result<Vec<CString>> {
        command_line("mendd", self.to_words())
    }

    /// Reads the words after [`KEEPER`].
    ///
    /// # Errors
    ///
    /// [`ArgumentError`] names the word.
    pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, ArgumentError> {
        let parsed = Parsed::new(words)?;
        Ok(Self {
            runtime_dir: parsed.path("runtime")?,
            lock: parsed.needed_fd("lock")?,
            nofile: parsed.nofile()?,
            table: parsed.fd("table")?,
            brain: parsed.pair("brain")?,
            rehearsal: parsed.take("rehearsal").is_some(),
            handover: parsed.fd("handover")?,
            options: parsed.options,
        })
    }
}

impl BrainArguments {
    /// Returns the words after the program's name.
    pub fn to_words(&self) -> Vec<OsString> {
        let words = vec![
            BRAIN.into(),
            word("runtime", self.runtime_dir.as_os_str()),
            number("socket", self.socket),
            word("nofile", OsStr::new(&format!("{}:{}", self.nofile.0, self.nofile.1))),
            number("cold", u8::from(self.cold)),
        ];
        finish(words, &self.options)
    }

    /// Returns the whole argument list of a brain image.
    ///
    /// # Errors
    ///
    /// As for [`KeeperArguments::to_argv`].
    pub fn to_argv(&self) -> io::Result<Vec<CString>> {
        command_line("mend-brain", self.to_words())
    }

    /// Reads the words after [`BRAIN`].
    ///
    /// # Errors
    ///
    /// [`ArgumentError`] names the word.
    pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, ArgumentError> {
        let parsed = Parsed::new(words)?;
        Ok(Self {
            runtime_dir: parsed.path("runtime")?,
            socket: parsed.needed_fd("socket")?,
            nofile: parsed.nofile()?,
            cold: parsed.take("cold").is_some_and(|value| value == "1"),
            options: parsed.options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_the_command_line() {
        let options = vec![OsString::from("--config"), OsString::from_vec(vec![b'/', 0xff])];
        let keeper = KeeperArguments {
            runtime_dir: "/run/a=b -- c".into(),
            lock: 3,
            nofile: (1024, u64::MAX),
            table: Some(9),
            brain: Some((4711, 12)),
            rehearsal: true,
            handover: Some(11),
            options: options.clone(),
        };
        let words = keeper.to_words();
        assert_eq!(words[0], KEEPER);
        assert_eq!(KeeperArguments::parse(words.into_iter().skip(1)).unwrap(), keeper);
        let brain = BrainArguments {
            runtime_dir: "/run".into(),
            socket: 4,
            nofile: (1, 2),
            cold: true,
            options,
        };
        let words = brain.to_words();
        assert_eq!(BrainArguments::parse(words.into_iter().skip(1)).unwrap(), brain);
    }

    #[test]
    fn a_word_without_a_value_is_refused() {
        assert!(KeeperArguments::parse([OsString::from("lock")].into_iter()).is_err());
        assert!(BrainArguments::parse([OsString::from("runtime=/x")].into_iter()).is_err());
    }
}
