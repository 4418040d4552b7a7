use futures_util::StreamExt;

use super::*;

async fn all(stream: Bytestream) -> io::Result<Vec<u8>> {
    let mut stream = stream;
    let mut whole = Vec::new();
    while let Some(piece) = stream.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

#[tokio::test]
async fn what_is_kept_reads_back_whole_and_in_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, spool) =
        (Blobs::open(&Place::Directory(dir.path().join("b"))).unwrap(), Spool::open(&dir.path().join("s")).unwrap());
    let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    let spooled = spool.whole(&bytes).unwrap();
    let digest = spooled.digest();
    blobs.keep(&spooled).await.unwrap();
    blobs.keep(&spooled).await.unwrap();
    drop(spooled);
    let own = std::fs::read_dir(dir.path().join("s")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 1, "of the spool its lock is left");
    assert_eq!(std::fs::read_dir(dir.path().join("b/incoming")).unwrap().count(), 0);
    assert_eq!(blobs.size(&digest).await.unwrap(), 700_000);
    assert_eq!(all(blobs.read(&digest, 0..700_000).await.unwrap()).await.unwrap(), bytes);
    let part = blobs.read(&digest, 299_999..300_005).await.unwrap();
    assert_eq!(all(part).await.unwrap(), bytes[299_999..300_005]);
    let missing = Sha256::new([7; 32]);
    assert!(matches!(blobs.read(&missing, 0..1).await.err(), Some(BlobError::Missing(m)) if m == missing));
}

#[tokio::test]
async fn a_blob_that_became_shorter_is_an_error_and_no_short_answer() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&Place::Directory(dir.path().join("b"))).unwrap();
    let spool = Spool::open(&dir.path().join("s")).unwrap();
    let spooled = spool.whole(&[1; 5000]).unwrap();
    blobs.keep(&spooled).await.unwrap();
    let name = spooled.digest().to_string();
    let stream = blobs.read(&spooled.digest(), 0..6000).await.unwrap();
    assert_eq!(all(stream).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{name}");
}

#[test]
fn what_a_killed_process_left_is_swept_and_what_a_living_one_has_stays() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("killed");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("lock"), "").unwrap();
    std::fs::write(left.join("x.spool"), "half").unwrap();
    std::fs::write(dir.path().join("other"), "not ours").unwrap();
    let one = Spool::open(dir.path()).unwrap();
    let kept = one.whole(b"x").unwrap();
    let two = Spool::open(dir.path()).unwrap();
    assert!(!left.exists() && kept.path().exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "two spools and what is not ours");
    drop((kept, one, two));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn nodes_on_one_storage_see_one_anothers_marks() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Blobs::open(&Place::Directory(dir.path().join("b"))).unwrap();
    let (a, b) = (open(), open());
    assert_eq!(a.mark("a").await.unwrap(), ["a"]);
    let mut seen = b.mark("b").await.unwrap();
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
    b.unmark("a").await.unwrap();
    b.unmark("a").await.unwrap();
    assert_eq!(b.mark("b").await.unwrap(), ["b"]);
}
