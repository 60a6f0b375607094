//! Pressure stall information: the share of time in which tasks waited for the processor, for
//! memory or for disks; see the kernel's `Documentation/accounting/psi.rst`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::core::care::gate::Pressure;

/// What tasks wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Cpu,
    Memory,
    Io,
}

/// Percent of the time, over the last 10, 60 and 300 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Averages {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
}

/// How long tasks waited for one resource.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stall {
    /// At least one task waited.
    pub some: Averages,
    /// All tasks waited, and nothing was done. Zero where the kernel does not say.
    pub full: Averages,
}

impl Resource {
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Io];

    /// Its name, as the kernel writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
        }
    }
}

/// Reads what the whole host waits for.
///
/// # Errors
///
/// [`io::ErrorKind::NotFound`] or `EOPNOTSUPP` where the kernel does not measure pressure.
pub fn of_host(resource: Resource) -> io::Result<Stall> {
    read(&Path::new("/proc/pressure").join(resource.word()))
}

/// Reads what the members of a control group wait for.
///
/// # Errors
///
/// As for [`of_host`], and when the group is gone.
pub fn of_group(group: &Path, resource: Resource) -> io::Result<Stall> {
    let file: PathBuf = group.join(format!("{}.pressure", resource.word()));
    read(&file)
}

/// Reads the three figures of the host that healing goes by.
///
/// # Errors
///
/// As for [`of_host`].
pub fn gate() -> io::Result<Pressure> {
    let cpu_some = of_host(Resource::Cpu)?.some.avg10;
    let memory_full = of_host(Resource::Memory)?.full.avg10;
    let io_full = of_host(Resource::Io)?.full.avg10;
    Ok(Pressure { cpu_some, memory_full, io_full })
}

fn read(file: &Path) -> io::Result<Stall> {
    parse(&fs::read_to_string(file)?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no pressure information"))
}

/// Reads `some avg10=0.30 avg60=1.42 avg300=5.60 total=53472952`, and the same for `full`.
fn parse(text: &str) -> Option<Stall> {
    let line = |word: &str| text.lines().find_map(|line| averages(line.strip_prefix(word)?));
    Some(Stall { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

fn averages(line: &str) -> Option<Averages> {
    let figure = |name: &str| {
        let mut fields = line.split_ascii_whitespace();
        let value: f64 = fields.find_map(|field| field.strip_prefix(name))?.parse().ok()?;
        value.is_finite().then_some(value)
    };
    Some(Averages {
        avg10: figure("avg10=")?,
        avg60: figure("avg60=")?,
        avg300: figure("avg300=")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_lines_are_read_and_the_second_may_be_missing() {
        let text = "some avg10=0.30 avg60=1.42 avg300=5.60 total=53472952\n\
                    full avg10=0.10 avg60=0.20 avg300=0.30 total=7\n";
        let stall = parse(text).unwrap();
        assert_eq!((stall.some.avg10, stall.some.avg300, stall.full.avg60), (0.3, 5.6, 0.2));
        // Before Linux 5.13 there is no such line for the processor.
        let stall = parse(text.lines().next().unwrap()).unwrap();
        assert_eq!((stall.some.avg60, stall.full), (1.42, Averages::default()));
        for torn in ["", "some", "full avg10=0 avg60=0 avg300=0", "some avg10=NaN avg60=1 avg300=1"]
        {
            assert_eq!(parse(torn), None, "{torn}");
        }
    }

    #[test]
    fn this_host_is_measured_or_says_that_it_cannot_be() {
        match gate() {
            Ok(pressure) => assert!((0.0..=100.0).contains(&pressure.cpu_some), "{pressure:?}"),
            Err(error) => {
                let unsupported = error.raw_os_error() == Some(libc::EOPNOTSUPP);
                assert!(unsupported || error.kind() == io::ErrorKind::NotFound, "{error}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(some |full |avg10=|avg60=|[0-9.eN= \n-]){0,30}") {
            let _ = parse(&text);
        }
    }
}
