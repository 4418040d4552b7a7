//! Certificates and keys of every kind for tests, made on the spot. What rcgen with ring cannot make is below: test keys that
//! guard nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SignatureAlgorithm, date_time_ymd,
};

/// When the tests of the folder take place: 2027-01-15.
pub(crate) const NOW: u64 = 1_800_000_000;

/// A chain (leaf first) and its key, both PEM; the key is PKCS#8.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let params = authority(name);
        let pem = params.self_signed(&key).expect("certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// An authority under this one.
    pub(crate) fn under(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let params = authority(name);
        let pem = params.signed_by(&key, &self.issuer).expect("certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// ECDSA P-256, valid from 2020 to 2119.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, 2020..2120, &ecdsa())
    }

    /// Valid from the first day of one year to the first of the other.
    pub(crate) fn issue_with(&self, names: &[&str], years: std::ops::Range<i32>, key: &KeyPair) -> Issued {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "cn.example");
        let certificate = params.signed_by(key, &self.issuer).expect("certificate");
        Issued { chain: certificate.pem(), key: key.serialize_pem() }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

/// As `openssl req -x509` makes them: its own issuer, a CA, with server names.
pub(crate) fn self_signed(names: &[&str], years: std::ops::Range<i32>, is_ca: IsCa) -> Issued {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let key = ecdsa();
    let mut params = CertificateParams::new(names).expect("names");
    params.is_ca = is_ca;
    params.not_before = date_time_ymd(years.start, 1, 1);
    params.not_after = date_time_ymd(years.end, 1, 1);
    Issued { chain: params.self_signed(&key).expect("certificate").pem(), key: key.serialize_pem() }
}

pub(crate) fn ecdsa() -> KeyPair {
    generate(&rcgen::PKCS_ECDSA_P256_SHA256)
}

pub(crate) fn generate(kind: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(kind).expect("key")
}

pub(crate) fn rsa() -> KeyPair {
    KeyPair::from_pem(&pem("PRIVATE KEY", RSA_PKCS8)).expect("key")
}

/// The same RSA key as `openssl genrsa -traditional` writes it; PKCS#8 has 26 bytes before it (RFC 5208, RFC 8017 §A.1.2).
pub(crate) fn rsa_pkcs1() -> String {
    inner("RSA PRIVATE KEY", &rsa().serialize_der(), 26)
}

/// A P-256 key as `openssl ecparam -genkey` writes it, with the section before it that everybody must skip.
pub(crate) fn sec1(key: &KeyPair) -> String {
    let parameters = pem("EC PARAMETERS", "BggqhkjOPQMBBw==\n");
    parameters + &inner("EC PRIVATE KEY", &key.serialize_der(), 29)
}

fn inner(label: &str, der: &[u8], from: usize) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(&der[from..]);
    pem(label, &format!("{text}\n"))
}

pub(crate) fn pem(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}-----END {label}-----\n")
}

/// `NAME.crt` and `NAME.key`, the key for its owner only.
pub(crate) fn put(folder: &Path, name: &str, issued: &Issued) {
    fs::write(folder.join(format!("{name}.crt")), &issued.chain).expect("written");
    put_key(&folder.join(format!("{name}.key")), &issued.key, 0o600);
}

pub(crate) fn put_key(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}

/// 2048 bits, PKCS#8, without its armour.
pub(crate) const RSA_PKCS8: &str = "\
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC9vUHO2yKM4U41\n\
aafhIrswa89KcAP6T03I5S8/brXGes0K1j3XxzekC3RWmguzBL0FOoDKUn3lfsvn\n\
4sxQWXffqmIPhzZXrIHDqup0XREK9ev3y15D3s4dRTYJW/HoStxjDdHN7O1Sh3kO\n\
KuUBGsmdLArqXSGaBFM25a7GD1nNdqzxFb1fjcDFJuORVt5jAZjotdf8RuyK4OUS\n\
RUicTU2/zC9InLfqHzEX3LfpBn5KWyUoetffq0UKw8Ad83BKpm2VjWAWrrMyRukL\n\
XMBtPN9AqP4FPSJoG3lnHQCjlJqrmHbcBJI9kyKJylLnuooM/LBjjwAAxcRZ9bBJ\n\
NbbYSRqpAgMBAAECggEACN0pEF+f86cNeDct4RT/W9eFg13wt1io8tMGHkCTkzrv\n\
12seq34nIH/8xpRevIxQekiNmdzv/JV1M5dDKvPGecmtITomx0J5oSlAagDP4zn7\n\
dN9D9ixzZwLM76qRBlIoaNrNWW8Rdld6R8nxWmpbmCN38so4lrXiA+UsSmWznqcx\n\
PHdv2fVT/V/cRp00QqpUprX12PmgccIRuFDHosbOqe+beaU6NqG6tV2kIh4Mb6As\n\
E/ZJ4axYmzKjYZXjmgWyO4a4rfMmLRHQDPUNZT1XfTH1uBuyeyObz3FO66WH/E2I\n\
QfTVYdrgoo5V3oLZ3kLeECa29y55LB5eSSH9wjkC2wKBgQD7nHaSVoCdeXjB8GEH\n\
mnSVoGoaCJe/5uiaKC5op0+SiWkIorMsBtPAsi9YcRZ5XAGn6M2px4ToYWIoXrgo\n\
IlUv0PYcV0xUqk7oAq2TCcMkAlF7XBfgY9bTo12lzPzA1s2eguWBAwa+xdlFUwmC\n\
s2lT7KJ/b93LelU2HAHv2tu1DwKBgQDBDINVXxB/r3tGVoVBbwDUTJMmh7QMeGAX\n\
QXw2757hedeWLn+u9VSbuEccj4gfc87wj5N2qeJV5B/XN1WOpw2a6J1vWb8QbBP7\n\
MCp8e2rb0IYB9Ak0FytuB+JMrmJeLyMbnhcgGjipba1TMobXzJ3Q2vtpa1UJXKh5\n\
+rkoneLkxwKBgQCG89nJDap4TCHP660vVdG4O00NX5R88k3J+UlDCpIsZ5U1c4ak\n\
U5kZ3rh0OFu0hfvBYqWEraYEuc7bFkqyBBAq0GpgsxYWxy4BVQZiOjc3RiMMBk4s\n\
JYChDRt6hWL/z3aD0XNlagkhI58whqQwPSh+Qgq6TXbp31h66DTFwF5dUwKBgD5S\n\
8duP812lo6DTsfWsBpKDnkYkLYaRHkSjyZxaw+p7UZSUsngjkAst9RdNZ17wHnEf\n\
iTYYJpAgM/9hR+fkGspWKu2WBc8hdVn09OJ3XcpVic37oTUF/elp9i9XZT6O7UCv\n\
Szv7+ysH05s2hr4IuzKAYAZqtmttVJ78yOZKAsRlAoGAeqBfKEFmJfdyrdcOUKX4\n\
pCwIkoV++sAF70gutkUBCAdeIATGHT4qJDLzenU+VtF1EbWxtb8a779v2SAZlbcs\n\
6JoHnaB6gabIT8qozL2yf34ZfvsKaKZP7tLRtWhRUjuPFBY/YqsyxR2wWRpt5GTX\n\
FJuPuwVOSsPVUs+oPkmyJjo=\n\
";

/// A kind of key ring does not sign with.
pub(crate) const P521_PKCS8: &str = "\
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBHjZwPTLUaagW1AzI\n\
LJXltVe9pO4CyCf2L96tPw9j2eiUPsjudyFVjnhCMhK7gpIQiVzotDCa+bwivhgN\n\
1jFhL6KhgYkDgYYABAHA65ck6ig3iXg5StiFJJhWNiGHAXGJMpRllSrNSCEbVFP2\n\
t/akxPuSRZ+4ar7nlZOVvbNG7LNSWH1ciIFpvggETAG95ucQVQ7VXr38OjSvfp/e\n\
jYy5l4eRle/1Qo6UMspakHpjfiVufMcHNQlxkA12HvF22AZ4EdBfsIx48EmaE0Dc\n\
GA==\n\
";

/// P-256, of the certificate below.
pub(crate) const V1_KEY: &str = "\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgNZCJ4SRJtpYcBQ/o\n\
oFMPQr6WuSeI97XPA/b9GmSI06WhRANCAAQIzeaWBZvKoDgU2lVf4LWyPFBJUAmD\n\
YWI4H6IARqTRvLW5kYlEk+tbCm3ztcLvynMLG2QI8P9zbZ0W24TmgIV8\n\
";

/// X.509 v1, common name `old.example`, valid from 2026 to 2126.
pub(crate) const V1_CERTIFICATE: &str = "\
MIIBKDCBzwIUeJE4DsnvjWOmkJKmH8//WwSosOQwCgYIKoZIzj0EAwIwFjEUMBIG\n\
A1UEAwwLb2xkLmV4YW1wbGUwIBcNMjYxMTIwMjE0MzQyWhgPMjEyNjEwMjcyMTQz\n\
NDJaMBYxFDASBgNVBAMMC29sZC5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0D\n\
AQcDQgAECM3mlgWbyqA4FNpVX+C1sjxQSVAJg2FiOB+iAEak0by1uZGJRJPrWwpt\n\
87XC78pzCxtkCPD/c22dFtuE5oCFfDAKBggqhkjOPQQDAgNIADBFAiBU0fyaQ6TH\n\
Q/MM9NzJuLGPiYR7Qao6v0z8+U6w+FUHaQIhAPLBC+3At3WRhneoJiXoO2lmNGsD\n\
8VgC2Q4P6knAQWbA\n\
";
