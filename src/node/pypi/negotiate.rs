//! Which form of a page a client wants (PEP 691, RFC 9110 §12.5.1). Pure.

/// A form of a simple page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// PEP 691.
    Json,
    /// PEP 503 under its versioned type.
    Html,
    /// PEP 503 as browsers and old clients ask for it.
    PlainHtml,
}

impl Form {
    /// Value of Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/vnd.pypi.simple.v1+json",
            Self::Html => "application/vnd.pypi.simple.v1+html",
            Self::PlainHtml => "text/html; charset=utf-8",
        }
    }

    fn of(media: &str) -> Option<Self> {
        Self::known(media).or_else(|| {
            let is_written_otherwise = media.bytes().any(|b| b.is_ascii_uppercase());
            is_written_otherwise.then(|| Self::known(&media.to_ascii_lowercase()))?
        })
    }

    fn known(media: &str) -> Option<Self> {
        match media {
            "application/vnd.pypi.simple.v1+json" | "application/vnd.pypi.simple.latest+json" => Some(Self::Json),
            "application/vnd.pypi.simple.v1+html" | "application/vnd.pypi.simple.latest+html" => Some(Self::Html),
            "text/html" | "text/*" | "*/*" => Some(Self::PlainHtml),
            "application/*" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The form with the greatest weight; of equals the one named first. Nothing asked, or nothing we have: HTML, as PyPI does,
/// because a client that cannot say what it wants is a browser or a script.
///
/// `format`: the query's `format`, which wins.
pub fn form(accept: &[&str], format: Option<&str>) -> Form {
    if let Some(form) = format.and_then(Form::of) {
        return form;
    }
    let mut best = (Form::PlainHtml, 0);
    for range in accept.iter().flat_map(|value| value.split(',')).take(64) {
        let mut parts = range.split(';').map(str::trim);
        let Some(form) = parts.next().and_then(Form::of) else { continue };
        let weight =
            parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q="))).map_or(1000, thousandths);
        if weight > best.1 {
            best = (form, weight);
        }
    }
    best.0
}

/// `0.5` is 500; what is no weight is 0.
fn thousandths(text: &str) -> u32 {
    text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).map_or(0, |q| (q * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_gets_what_it_asks_for() {
        let pip = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01";
        for (accept, expected) in [
            (&[pip][..], Form::Json),
            (&["application/vnd.pypi.simple.v1+json, */*;q=0.1"], Form::Json),
            (&["application/vnd.pypi.simple.latest+json"], Form::Json),
            (&["application/vnd.pypi.simple.v1+html"], Form::Html),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Form::PlainHtml),
            (&["application/vnd.pypi.simple.v1+json;q=0, text/html;q=0.1"], Form::PlainHtml),
            (&["application/vnd.pypi.simple.v1+json;q=0.2", "application/vnd.pypi.simple.v1+html;q=0.9"], Form::Html),
            (&["image/png"], Form::PlainHtml),
            (&[], Form::PlainHtml),
        ] {
            assert_eq!(form(accept, None), expected, "{accept:?}");
        }
        assert_eq!(form(&["text/html"], Some("application/vnd.pypi.simple.v1+json")), Form::Json);
    }
}
