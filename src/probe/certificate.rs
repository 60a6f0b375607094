//! How long is a certificate valid?
//!
//! Who has signed it is not looked at: a private authority's expires as well.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::finding::{Finding, Unit, measured};
use super::progress::Progress;
use super::{file, tls, words};
use crate::config::{Bounds, CertificateLook, CertificateOf, Endpoint, Level};
use crate::core::care::evidence::{Certificate, ProbeFailure};
use crate::os::clock;

const DAY: i64 = 86_400;
/// The longest file that is taken for one with a certificate.
const MAX_FILE_BYTES: usize = 1 << 20;

/// What a certificate says of itself; times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dates {
    /// Whom it is for: its first name, else the common name.
    pub(super) subject: String,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

pub(super) async fn look(look: &CertificateLook, progress: &Progress) -> Finding {
    match find(look, progress).await.and_then(|found| read(&found)) {
        Ok(dates) => judge(&dates, &look.days_left, now()),
        Err(finding) => finding,
    }
}

/// Returns the seconds since 1970.
pub(super) fn now() -> i64 {
    clock::wall().0 / 1000
}

async fn find(
    look: &CertificateLook,
    progress: &Progress,
) -> Result<CertificateDer<'static>, Finding> {
    match &look.of {
        CertificateOf::Server { address, server_name } => {
            tls::shown_certificate(&Endpoint::Tcp(address.clone()), server_name, progress).await
        }
        CertificateOf::File(path) => {
            let bytes = file::read(path, MAX_FILE_BYTES).await?;
            first(&bytes, path)
        }
    }
}

/// Returns the first certificate of a file in PEM.
fn first(bytes: &[u8], path: &Path) -> Result<CertificateDer<'static>, Finding> {
    let no_certificate =
        || Finding::unknown(format!("`{}` has no certificate in PEM", path.display()));
    let mut found = CertificateDer::pem_slice_iter(bytes);
    found.next().and_then(Result::ok).ok_or_else(no_certificate)
}

fn read(certificate: &CertificateDer<'_>) -> Result<Dates, Finding> {
    dates(certificate).ok_or_else(|| Finding::unknown("the certificate cannot be read"))
}

/// Reads a certificate in DER; `None` for what is none.
pub(super) fn dates(der: &[u8]) -> Option<Dates> {
    let certificate = x509_cert::Certificate::from_der(der).ok()?;
    let certificate = certificate.tbs_certificate();
    let seconds = |time: x509_cert::time::Time| {
        i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
    };
    let names = certificate.get_extension::<SubjectAltName>().ok().flatten();
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let name = names.iter().find_map(|name| {
        let GeneralName::DnsName(name) = name else { return None };
        Some(name.to_string())
    });
    let parts = certificate.subject().iter();
    let mut parts = parts.filter(|part| part.oid == CN);
    let common = parts.next().map(|part| String::from_utf8_lossy(part.value.value()).into_owned());
    let subject = name.or(common).unwrap_or_else(|| certificate.subject().to_string());
    Some(Dates {
        subject: words::shown(&subject),
        not_before: seconds(certificate.validity().not_before),
        not_after: seconds(certificate.validity().not_after),
    })
}

fn judge(dates: &Dates, bounds: &Bounds<u32>, now: i64) -> Finding {
    let subject = &dates.subject;
    let left = dates.not_after.saturating_sub(now);
    if let Some(finding) = invalid(dates, now) {
        return finding;
    }
    let days = u32::try_from(left / DAY).unwrap_or(u32::MAX);
    let level = bounds.of_least(days);
    let time = words::days(left.unsigned_abs());
    let sentence = format!("certificate of {subject} expires in {time}");
    let what = format!("the time until the certificate of {subject} expires");
    let limit = |days: u32| words::days(u64::from(days) * DAY.unsigned_abs());
    let finding = measured(level, bounds, sentence, &what, time, limit);
    let certificate = Certificate { subject: subject.clone(), seconds_left: left };
    let finding = finding.with_sample(f64::from(days), Unit::Days);
    // A good one is no evidence.
    finding.with_certificate((level != Level::Good).then_some(certificate))
}

/// Says so when a certificate has expired or is not valid yet.
pub(super) fn invalid(dates: &Dates, now: i64) -> Option<Finding> {
    let Dates { subject, not_before, not_after } = dates;
    let left = not_after.saturating_sub(now);
    let to_come = not_before.saturating_sub(now);
    let sentence = if left <= 0 {
        format!("certificate of {subject} expired {} ago", words::days(left.unsigned_abs()))
    } else if to_come > 0 {
        let time = words::days(to_come.unsigned_abs());
        format!("certificate of {subject} is not valid yet, but in {time}: is the clock right?")
    } else {
        return None;
    };
    let certificate = Certificate { subject: subject.clone(), seconds_left: left };
    let certificate = (left <= 0).then_some(certificate);
    let finding = Finding::fail(ProbeFailure::CertificateInvalid, sentence);
    #[expect(clippy::cast_precision_loss, reason = "days need no more than 52 bits")]
    let days = left.div_euclid(DAY) as f64;
    Some(finding.with_certificate(certificate).with_sample(days, Unit::Days))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::care::Verdict;
    use proptest::prelude::*;

    const BOUNDS: Bounds<u32> = Bounds { warn: Some(14), fail: Some(3) };

    fn judged(not_before: i64, not_after: i64) -> Finding {
        let dates = Dates { subject: "example.org".into(), not_before, not_after };
        judge(&dates, &BOUNDS, 1_000 * DAY)
    }

    #[test]
    fn whole_days_that_are_left_are_compared_with_the_bounds() {
        let verdict = |days: i64, seconds| judged(0, (1_000 + days) * DAY + seconds).verdict;
        assert_eq!(verdict(15, 0), Verdict::Pass);
        assert_eq!([verdict(14, DAY - 1), verdict(4, 0)], [Verdict::Warn; 2]);
        assert_eq!([verdict(3, DAY - 1), verdict(0, 1)], [Verdict::Fail; 2]);
        assert_eq!(
            judged(0, 1_006 * DAY).sentence,
            "certificate of example.org expires in 6 days (limit 14 days)"
        );
    }

    #[test]
    fn expired_and_not_yet_valid_fail_whatever_the_bounds() {
        let expired = judged(0, 998 * DAY);
        assert_eq!(expired.sentence, "certificate of example.org expired 2 days ago");
        assert_eq!(expired.failure, Some(ProbeFailure::CertificateInvalid));
        assert_eq!(expired.certificate.unwrap().seconds_left, -2 * DAY);
        assert_eq!(expired.sample.unwrap().value, -2.0);
        let early = judged(1_001 * DAY, 9_000 * DAY);
        assert_eq!((early.verdict, early.certificate), (Verdict::Fail, None));
        assert!(early.sentence.contains("is not valid yet, but in 1 day"), "{}", early.sentence);
    }

    #[test]
    fn a_torn_or_altered_certificate_never_panics() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
        let good = params.self_signed(&key).unwrap().der().to_vec();
        assert_eq!(dates(&good).unwrap().subject, "example.org");
        for index in 0..good.len() {
            assert_eq!(dates(&good[..index]), None, "{index} bytes");
            for bit in [1, 16, 128] {
                let mut bad = good.clone();
                bad[index] ^= bit;
                let _ = dates(&bad);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = dates(&bytes);
            let _ = first(&bytes, Path::new("x"));
        }
    }
}
