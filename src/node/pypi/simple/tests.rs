use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, ETAG, IF_NONE_MATCH};

use super::*;

#[test]
fn pages_are_known_again_by_their_etag_in_each_encoding() {
    let page = Page::make("text ".repeat(1000), Form::Json, None);
    let repository = Repository {
        id: 1,
        name: "pypi".into(),
        language: crate::node::store::Language::Python,
        anonymous_read: false,
        generation: 1,
        upload_source: None,
        own_sources: Vec::new(),
        remotes: Vec::new(),
        blocks: Vec::new(),
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
    let again = Page::make("text ".repeat(1000), Form::Json, Some(Arc::clone(&page)));
    assert!(Arc::ptr_eq(&page, &again), "another generation, the same page");
    assert!(!Arc::ptr_eq(&page, &Page::make("other".into(), Form::Json, Some(again))));
}

#[test]
fn a_day_shows_what_another_index_says_was_uploaded_by_then() {
    let file = |filename: &str, uploaded_at: Option<i64>| RemoteFile {
        filename: filename.to_owned(),
        url: format!("https://index.example/{filename}"),
        sha256: "aa".repeat(32),
        version: "1.0".to_owned(),
        size: None,
        requires_python: None,
        metadata_sha256: None,
        yanked: None,
        uploaded_at,
    };
    // 2024-03-01 ended here.
    let end = 1_709_337_600_000_000;
    let files = [file("before", Some(end - 1)), file("after", Some(end)), file("whenever", None)];
    let seen = |view: &str| -> Vec<String> {
        remote_files(&files, View::parse(view).unwrap()).into_iter().map(|file| file.filename).collect()
    };
    assert_eq!(seen("2024-03-01"), ["before"]);
    assert_eq!(seen("2024-03-02"), ["before", "after"]);
    assert_eq!(seen("2024-02-29"), [""; 0]);
    assert_eq!(seen("latest"), ["before", "after", "whenever"]);
}
