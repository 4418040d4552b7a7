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
