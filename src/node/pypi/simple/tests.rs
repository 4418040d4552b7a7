use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};

use super::*;

fn project() -> Project {
    Project {
        id: 1,
        name: "My.<Pkg>".into(),
        normal_name: "my-pkg".into(),
        status: "archived".into(),
        status_reason: Some("\"old\" & done".into()),
    }
}

fn files() -> Vec<PackageFile> {
    let wheel = PackageFile {
        filename: "my_pkg-1.10-py3-none-any.whl".into(),
        version: "1.10".into(),
        size: 10,
        sha256: "aa".into(),
        requires_python: Some(">=3.8,<4".into()),
        metadata_sha256: Some("bb".into()),
        yanked: Some("broken \"build\"".into()),
        uploaded_at: 1_700_000_000_123_456,
    };
    let sdist = PackageFile {
        filename: "my_pkg-1.9.tar.gz".into(),
        version: "1.9".into(),
        requires_python: None,
        metadata_sha256: None,
        yanked: Some(String::new()),
        ..wheel.clone()
    };
    vec![wheel, sdist]
}

#[test]
fn a_project_as_json() {
    let json: Value = serde_json::from_str(&render_project(&project(), &files(), Form::Json)).unwrap();
    insta::assert_json_snapshot!(json);
}

#[test]
fn a_project_and_the_root_as_html() {
    let html = render_project(&project(), &files(), Form::Html) + &render_root(&[project()], Form::Html);
    insta::assert_snapshot!(html);
}

#[test]
fn pages_are_known_again_by_their_etag_in_each_encoding() {
    let page = Page::new("text ".repeat(1000), Form::Json);
    let repository = Repository {
        id: 1,
        name: "pypi".into(),
        language: crate::node::store::Language::Python,
        anonymous_read: false,
        generation: 1,
        upload_source: None,
    };
    let ask = |fields: &[(http::HeaderName, &str)]| {
        let fields = fields.iter().map(|(n, v)| (n.clone(), HeaderValue::from_str(v).unwrap())).collect();
        page.answer(&repository, Wanted { method: &Method::GET, fields: &fields })
    };
    let plain = ask(&[]);
    let gzip = ask(&[(ACCEPT_ENCODING, "gzip, deflate")]);
    assert!(plain.headers().get(CONTENT_ENCODING).is_none() && gzip.headers()[CONTENT_ENCODING] == "gzip");
    assert_ne!(plain.headers()[ETAG], gzip.headers()[ETAG]);
    assert_eq!(plain.headers()[CACHE_CONTROL], "private, max-age=0, must-revalidate");
    let etag = gzip.headers()[ETAG].to_str().unwrap().to_owned();
    assert_eq!(ask(&[(IF_NONE_MATCH, &etag), (ACCEPT_ENCODING, "gzip")]).status(), StatusCode::NOT_MODIFIED);
    assert_eq!(ask(&[(IF_NONE_MATCH, &etag)]).status(), StatusCode::OK, "those bytes are others");
    assert!(!accepts_gzip(&[(ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0"))].into_iter().collect()));
}
