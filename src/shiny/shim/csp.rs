//! What a page's Content-Security-Policy asks of an inline script, and how to comply (CSP3 §6.7.3).

/// How the script may run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Permit {
    /// The nonce its element must carry.
    pub(super) nonce: Option<String>,
    /// All policies, with our script's hash where it is needed; `None`: as they are.
    pub(super) policies: Option<String>,
}

/// `None`: the page forbids scripts altogether, and is left alone.
///
/// `fields` are the values of all policy fields, each a list of policies.
pub(super) fn permit(fields: &[&str], hash: &str) -> Option<Permit> {
    let (mut nonce, mut changed, mut written) = (None::<String>, false, Vec::new());
    for policy in fields.iter().flat_map(|f| f.split(',')).map(str::trim).filter(|p| !p.is_empty()) {
        let directives: Vec<&str> = policy.split(';').map(str::trim).filter(|d| !d.is_empty()).collect();
        let find =
            |name: &str| directives.iter().position(|d| words(d).next().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        let allows_scripts = |at: usize| words(directives[at]).any(|w| w.eq_ignore_ascii_case("allow-scripts"));
        if find("sandbox").is_some_and(|at| !allows_scripts(at)) {
            return None;
        }
        let effective = find("script-src-elem").or_else(|| find("script-src")).or_else(|| find("default-src"));
        let Some(at) = effective else {
            written.push(policy.to_owned());
            continue;
        };
        match judge(directives[at], nonce.as_deref())? {
            Need::Nothing => written.push(policy.to_owned()),
            Need::Nonce(value) => {
                nonce = Some(value);
                written.push(policy.to_owned());
            }
            Need::Hash => {
                let mut directives: Vec<String> = directives.iter().map(|d| (*d).to_owned()).collect();
                directives[at] = format!("{} {hash}", directives[at]);
                written.push(directives.join("; "));
                changed = true;
            }
        }
    }
    Some(Permit { nonce, policies: changed.then(|| written.join(", ")) })
}

enum Need {
    Nothing,
    Nonce(String),
    Hash,
}

/// What one directive asks; `nonce`: the one another policy already asked for.
fn judge(directive: &str, nonce: Option<&str>) -> Option<Need> {
    let sources: Vec<&str> = words(directive).skip(1).collect();
    let is = |source: &str, keyword: &str| source.eq_ignore_ascii_case(keyword);
    if sources.is_empty() || sources.iter().all(|s| is(s, "'none'")) {
        return None;
    }
    let nonces = || sources.iter().filter_map(|s| quoted(s, "nonce-"));
    let is_strict = sources
        .iter()
        .any(|s| quoted(s, "nonce-").is_some() || quoted(s, "sha").is_some() || is(s, "'strict-dynamic'"));
    // `'unsafe-inline'` counts only as long as nothing stricter stands beside it; adding a hash would disable it.
    if !is_strict && sources.iter().any(|s| is(s, "'unsafe-inline'")) {
        return Some(Need::Nothing);
    }
    Some(match nonces().find(|n| nonce.is_none_or(|known| known == *n)) {
        Some(value) if is_nonce(value) => Need::Nonce(value.to_owned()),
        _ => Need::Hash,
    })
}

fn words(directive: &str) -> impl Iterator<Item = &str> {
    directive.split_ascii_whitespace()
}

/// `'prefix…'` without quotes and prefix.
fn quoted<'a>(source: &'a str, prefix: &str) -> Option<&'a str> {
    let inner = source.strip_prefix('\'')?.strip_suffix('\'')?;
    inner.get(..prefix.len()).filter(|p| p.eq_ignore_ascii_case(prefix)).map(|_| &inner[prefix.len()..])
}

/// A nonce that may stand in an attribute (base64 or base64url).
fn is_nonce(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b))
}
