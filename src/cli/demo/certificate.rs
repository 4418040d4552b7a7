//! A certificate for this machine and the authority that signs it, for demonstrations only.
//!
//! The authority's key never leaves memory: once the certificate is signed nobody can sign another one, and name
//! constraints bind it to loopback names. So to trust it in a browser for a while is safe.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};

/// What came out, as PEM.
pub(super) struct Made {
    /// The authority's certificate, to be trusted.
    pub(super) ca: String,
    /// The server's certificate.
    pub(super) chain: String,
    /// The server's key; a secret.
    pub(super) key: String,
}

/// The names in the certificate; [`ADDRESSES`] are in it too.
const NAMES: [&str; 3] = ["localhost", "python.localhost", "r.localhost"];
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// Valid from a day ago, for clocks that differ.
const LEEWAY: Duration = Duration::from_secs(24 * 3600);
/// Browsers accept no more than 398 days from a public authority; no reason to ask for more from this one.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// One with less than this left is made anew.
const RENEWAL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Makes an authority and a certificate, both valid for a year from `now` (since 1970). `label` tells authorities
/// apart in a list of trusted ones.
///
/// # Errors
/// When the system gives no randomness.
pub(super) fn make(label: &str, now: Duration) -> Result<Made, rcgen::Error> {
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(LEEWAY);
        params.not_after = date_time_ymd(1970, 1, 1) + now + LIFETIME;
        params
    };

    let mut authority = params(&format!("Bowline demo authority {label}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // RFC 5280 §4.2.1.10: `localhost` permits the names below it too; addresses are permitted as subnets.
    authority.name_constraints = Some(NameConstraints {
        permitted_subtrees: std::iter::once(GeneralSubtree::DnsName("localhost".to_owned()))
            .chain(ADDRESSES.map(|address| {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, bits))
            }))
            .collect(),
        excluded_subtrees: Vec::new(),
    });
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?;

    let mut server = params("localhost");
    server.subject_alt_names = CertificateParams::new(
        NAMES.iter().map(ToString::to_string).chain(ADDRESSES.map(|address| address.to_string())).collect::<Vec<_>>(),
    )?
    .subject_alt_names;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &Issuer::from_params(&authority, &authority_key))?;

    Ok(Made { ca: ca.pem(), chain: certificate.pem(), key: key.serialize_pem() })
}

/// The certificate (PEM) has a week left at least, and is not from the future.
pub(super) fn is_fresh(pem: &[u8], now: Duration) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem) else { return false };
    let Ok(certificate) = pem.parse_x509() else { return false };
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    validity.not_before.timestamp() <= seconds(now) && validity.not_after.timestamp() > seconds(now + RENEWAL)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn verifier(ca: &str) -> Arc<WebPkiServerVerifier> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
    }

    #[test]
    fn the_certificate_is_good_for_every_loopback_name_and_no_other() {
        let made = make("x", NOW).unwrap();
        let chain = CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap();
        let judge = |name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            verifier(&made.ca).verify_server_cert(&chain, &[], &name, &[], UnixTime::since_unix_epoch(NOW))
        };
        for name in ["localhost", "python.localhost", "r.localhost", "127.0.0.1", "::1"] {
            judge(name).expect(name);
        }
        for name in ["example.org", "127.0.0.2"] {
            assert!(judge(name).is_err(), "{name}");
        }
        PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
    }

    #[test]
    fn one_of_another_authority_is_not_trusted() {
        let (made, other) = (make("x", NOW).unwrap(), make("x", NOW).unwrap());
        let chain = CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let verdict = verifier(&other.ca).verify_server_cert(&chain, &[], &name, &[], UnixTime::since_unix_epoch(NOW));
        assert!(verdict.is_err());
    }

    #[test]
    fn it_is_fresh_until_a_week_before_its_end() {
        let pem = make("x", NOW).unwrap().chain.into_bytes();
        let day = Duration::from_secs(24 * 3600);
        for (age, is_expected) in [(Duration::ZERO, true), (357 * day, true), (359 * day, false), (400 * day, false)] {
            assert_eq!(is_fresh(&pem, NOW + age), is_expected, "after {age:?}");
        }
        assert!(!is_fresh(&pem, NOW - 10 * day));
        assert!(!is_fresh(b"no certificate", NOW));
    }
}
