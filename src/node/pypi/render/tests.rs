use super::*;

const LINKS: Links<'_> = Links { up: "../..", absolute: Some("https://p.example/packages/pypi") };

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
        size: Some(10),
        sha256: "aa".into(),
        requires_python: Some(">=3.8,<4".into()),
        metadata_sha256: Some("bb".into()),
        yanked: Some("broken \"build\"".into()),
        uploaded_at: Some(1_700_000_000_123_456),
        has_provenance: true,
    };
    let sdist = PackageFile {
        filename: "my_pkg-1.9.tar.gz".into(),
        version: "1.9".into(),
        requires_python: None,
        metadata_sha256: None,
        has_provenance: false,
        yanked: Some(String::new()),
        ..wheel.clone()
    };
    vec![wheel, sdist]
}

#[test]
fn a_project_as_json() {
    let json: Value = serde_json::from_str(&super::project(&project(), &files(), Form::Json, &LINKS)).unwrap();
    insta::assert_json_snapshot!(json);
}

#[test]
fn a_project_and_the_root_as_html() {
    let html = super::project(&project(), &files(), Form::Html, &LINKS) + &projects(&[project()], Form::Html);
    insta::assert_snapshot!(html);
}
