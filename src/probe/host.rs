//! How loaded the host is, how long tasks wait, and how much room its disks have.

use std::io;
use std::path::{Path, PathBuf};

use super::aside::{Unanswered, aside};
use super::finding::{Finding, Unit, measured};
use super::memory::written;
use super::{Subject, Verdict, words};
use crate::config::{
    DiskLook, Level, LoadLook, LoadSpan, PressureLook, PressureOf, PressureShare, PressureSpan,
};
use crate::os::disk::{self, Space};
use crate::os::pressure::{self, Resource, Stall};
use crate::os::usage;

pub(super) fn look_load(look: &LoadLook) -> Finding {
    let read = usage::load().and_then(|load| Ok((load, usage::host_cpu()?.processors)));
    let (load, processors) = match read {
        Ok(read) => read,
        Err(error) => {
            let why = words::error(&error);
            return Finding::unknown(format!("the load of the host is not known: {why}"));
        }
    };
    judge_load(look, load, processors)
}

fn judge_load(look: &LoadLook, load: [f64; 3], processors: u32) -> Finding {
    let [one, five, fifteen] = load;
    let (load, time) = match look.span {
        LoadSpan::One => (one, "1 min"),
        LoadSpan::Five => (five, "5 min"),
        LoadSpan::Fifteen => (fifteen, "15 min"),
    };
    let each = load / f64::from(processors.max(1));
    let level = look.per_cpu.of_most(each);
    let sentence = format!("load {load:.2} over {time}, {each:.2} for each of {processors} CPUs");
    let written = |bound: f64| format!("{bound:.2}");
    let finding =
        measured(level, &look.per_cpu, sentence, "load of each CPU", written(each), written);
    finding.with_sample(each, Unit::Count)
}

pub(super) fn look_pressure(look: &PressureLook, subject: &Subject) -> Finding {
    let resource = match look.of {
        PressureOf::Cpu => Resource::Cpu,
        PressureOf::Memory => Resource::Memory,
        PressureOf::Io => Resource::Io,
    };
    let stall = match subject {
        Subject::Host => pressure::of_host(resource),
        Subject::Process(process) => match &process.group {
            Some(group) => pressure::of_group(group, resource),
            None => {
                let sentence =
                    "pressure is measured by control group, and the process has none of its own";
                return Finding::unknown(sentence);
            }
        },
    };
    match stall {
        Ok(stall) => judge_pressure(look, &stall),
        Err(error) => {
            Finding::unknown(format!("the kernel measures no pressure: {}", words::error(&error)))
        }
    }
}

fn judge_pressure(look: &PressureLook, stall: &Stall) -> Finding {
    let (averages, who) = match look.share {
        PressureShare::Some => (stall.some, "some tasks"),
        PressureShare::Full => (stall.full, "all tasks"),
    };
    let (value, time) = match look.span {
        PressureSpan::Ten => (averages.avg10, "10 s"),
        PressureSpan::Sixty => (averages.avg60, "60 s"),
        PressureSpan::ThreeHundred => (averages.avg300, "300 s"),
    };
    let what = match look.of {
        PressureOf::Cpu => "the processor",
        PressureOf::Memory => "memory",
        PressureOf::Io => "disks",
    };
    let percent = words::percent(value);
    let sentence = format!("{who} waited for {what} {percent} of the last {time}");
    let level = look.percent.of_most(value);
    let what = format!("the time in which {who} wait for {what}");
    let finding = measured(level, &look.percent, sentence, &what, percent, words::percent);
    finding.with_sample(value, Unit::Percent)
}

pub(super) async fn look_disk(look: &DiskLook) -> Finding {
    let path = look.path.clone();
    let shown = path.display().to_string();
    // On another host's disk this can take for ever.
    match aside(&format!("the disk at {shown}"), move || nearest(&path)).await {
        Ok(Ok((_, space))) => judge_disk(look, &space),
        Ok(Err(error)) => {
            let why = words::error(&error);
            Finding::unknown(format!("the disk at {shown} cannot be looked at: {why}"))
        }
        Err(Unanswered::Same(_)) => {
            let sentence = format!("the disk at {shown} has not answered for several looks");
            Finding::new(Verdict::Timeout, sentence)
        }
        Err(unanswered) => Finding::unknown(unanswered.to_string()),
    }
}

/// Asks for the room at a path, or at the closest directory above it that exists.
pub(super) fn nearest(path: &Path) -> io::Result<(PathBuf, Space)> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for path in path.ancestors() {
        match disk::space(path) {
            Ok(space) => return Ok((path.to_path_buf(), space)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

#[expect(clippy::cast_precision_loss, reason = "a sample needs no more than 52 bits")]
fn judge_disk(look: &DiskLook, space: &Space) -> Finding {
    let shown = look.path.display().to_string();
    // As df counts: what is reserved for root belongs to nobody.
    let whole = space.used_bytes.saturating_add(space.free_bytes);
    let (free, of) = (words::bytes(space.free_bytes), words::bytes(whole));
    let share = words::percent(words::share(space.free_bytes, whole));
    let level = look.free.in_bytes(whole).of_least(space.free_bytes);
    let sentence = format!("{shown} has {free} of {of} free, {share}");
    let what = format!("free space of {shown}");
    let value = format!("{free} ({share})");
    let room = measured(level, &look.free, sentence, &what, value, written);
    let room = room.with_sample(space.free_bytes as f64, Unit::Bytes);
    let (Some(bounds), Some(inodes)) = (&look.free_inodes, space.inodes) else { return room };
    let percent = words::share(inodes.free, inodes.total);
    let worse = bounds.of_least(percent);
    if worse == Level::Good || worse < level {
        return room;
    }
    let share = words::percent(percent);
    let sentence = format!("{shown} has {} of {} inodes free, {share}", inodes.free, inodes.total);
    let what = format!("free inodes of {shown}");
    let finding = measured(worse, bounds, sentence, &what, share, words::percent);
    finding.with_sample(percent, Unit::Percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Amount, Bounds};
    use crate::os::disk::Inodes;
    use crate::os::pressure::Averages;

    #[test]
    fn load_counts_for_each_processor() {
        let bounds = Bounds { warn: Some(1.5), fail: Some(4.0) };
        let look = LoadLook { per_cpu: bounds, span: LoadSpan::Five };
        let finding = judge_load(&look, [9.0, 3.5, 1.0], 2);
        assert_eq!(finding.verdict, Verdict::Warn);
        let sentence = "load 3.50 over 5 min, 1.75 for each of 2 CPUs (limit 1.50)";
        assert_eq!(finding.sentence, sentence);
        let look = LoadLook { span: LoadSpan::Fifteen, ..look };
        assert_eq!(judge_load(&look, [9.0, 3.5, 1.0], 2).verdict, Verdict::Pass);
    }

    #[test]
    fn pressure_is_the_share_of_time_that_tasks_waited() {
        let bounds = Bounds { warn: None, fail: Some(10.0) };
        let look = PressureLook {
            of: PressureOf::Memory,
            share: PressureShare::Full,
            span: PressureSpan::Sixty,
            percent: bounds,
        };
        let full = Averages { avg10: 1.0, avg60: 25.0, avg300: 3.0 };
        let stall = Stall { some: Averages::default(), full };
        let finding = judge_pressure(&look, &stall);
        assert_eq!(finding.verdict, Verdict::Fail);
        let sentence = "all tasks waited for memory 25 % of the last 60 s (limit 10 %)";
        assert_eq!(finding.sentence, sentence);
        let look = PressureLook { share: PressureShare::Some, ..look };
        assert_eq!(judge_pressure(&look, &stall).verdict, Verdict::Pass);
    }

    #[test]
    fn a_disk_fails_for_want_of_bytes_or_of_inodes() {
        let look = DiskLook {
            path: "/var".into(),
            free: Bounds { warn: Some(Amount::Percent(10.0)), fail: Some(Amount::Bytes(1 << 20)) },
            free_inodes: Some(Bounds { warn: Some(5.0), fail: Some(1.0) }),
        };
        let at = |free_bytes: u64, free| {
            let inodes = Some(Inodes { total: 1000, free });
            let size_bytes = 100 << 30;
            let used_bytes = (50 << 30) - free_bytes;
            judge_disk(&look, &Space { size_bytes, used_bytes, free_bytes, inodes })
        };
        let good = at(20 << 30, 900);
        assert_eq!(
            (good.verdict, good.sentence.as_str()),
            (Verdict::Pass, "/var has 20 GiB of 50 GiB free, 40 %")
        );
        assert_eq!(at(5 << 30, 900).verdict, Verdict::Warn);
        let full = at(0, 900);
        assert_eq!(full.verdict, Verdict::Fail);
        assert_eq!(full.sentence, "/var has 0 B of 50 GiB free, 0 % (limit 1 MiB)");
        let inodes = at(5 << 30, 7);
        assert_eq!(inodes.verdict, Verdict::Fail);
        assert_eq!(inodes.sentence, "/var has 7 of 1000 inodes free, 0.7 % (limit 1 %)");
    }

    #[test]
    fn the_disk_of_a_path_that_does_not_exist_yet_is_that_of_its_parent() {
        let directory = tempfile::tempdir().unwrap();
        let (found, _) = nearest(&directory.path().join("a/b/c")).unwrap();
        assert_eq!(found, directory.path());
    }
}
