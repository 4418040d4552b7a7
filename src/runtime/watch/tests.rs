use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::UNIX_EPOCH;

use tokio::time::timeout;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// By events alone: the next look of its own is far away.
const EVENTS: Pace = Pace {
    settle: Duration::from_millis(50),
    settle_max: Duration::from_millis(500),
    poll: Duration::from_secs(3600),
    events: true,
};

/// By looking alone, as on NFS.
const POLL: Pace = Pace { poll: Duration::from_millis(30), events: false, ..EVENTS };

struct Watched {
    folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
    watcher: Watcher,
    changes: Changes,
}

impl Watched {
    async fn new(pace: Pace, prepare: impl FnOnce(&Path) -> Vec<&'static str>) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let names = prepare(folder.path());
        let paths: Vec<PathBuf> = names.into_iter().map(|name| folder.path().join(name)).collect();
        let (watcher, changes) = Watcher::with_pace(paths.clone(), pace).await;
        Self { folder, paths, watcher, changes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// Waits for a change, and takes with it what else belonged to it.
    async fn hears(&mut self, what: &str) {
        timeout(LONG, self.changes.recv()).await.unwrap_or_else(|_| panic!("not told: {what}")).expect("it lives");
        self.look().await;
        let _ = self.changes.try_recv();
    }

    /// Nothing is told, also not a while later. A wait that is too short cannot fail a good watcher.
    async fn is_silent(&mut self, what: &str) {
        self.look().await;
        tokio::time::sleep(EVENTS.settle * 3).await;
        assert!(self.changes.try_recv().is_err(), "told without reason: {what}");
    }

    /// Makes it look now: whatever happened before has been told then.
    async fn look(&self) {
        self.watcher.replace(self.paths.clone()).await;
    }
}

fn one_file(folder: &Path) -> Vec<&'static str> {
    fs::write(folder.join("a.toml"), "1").expect("written");
    vec!["a.toml"]
}

#[tokio::test]
async fn every_way_to_change_a_file_is_told() {
    for pace in [EVENTS, POLL] {
        let mut watched = Watched::new(pace, one_file).await;
        watched.is_silent("nothing happened").await;
        watched.write("a.toml", "2");
        watched.hears("written in place").await;
        watched.write(".a.toml.tmp", "3");
        fs::rename(watched.path(".a.toml.tmp"), watched.path("a.toml")).expect("renamed");
        watched.hears("renamed over").await;
        // As vim does with backups.
        fs::rename(watched.path("a.toml"), watched.path("a.toml~")).expect("moved");
        watched.write("a.toml", "4");
        watched.hears("moved away and written anew").await;
        fs::remove_file(watched.path("a.toml")).expect("removed");
        watched.hears("removed").await;
        watched.write("a.toml", "4");
        watched.hears("made again").await;
        fs::set_permissions(watched.path("a.toml"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("mode");
        watched.hears("mode").await;
        // Same size, and the time set back.
        watched.write("a.toml", "5");
        let file = fs::File::options().write(true).open(watched.path("a.toml")).expect("open");
        file.set_modified(UNIX_EPOCH).expect("time");
        drop(file);
        watched.hears("written with an old time").await;
        watched.is_silent("nothing more").await;
    }
}

#[tokio::test]
async fn neighbours_and_readers_are_nobodys_business() {
    for pace in [EVENTS, POLL] {
        let mut watched = Watched::new(pace, one_file).await;
        watched.write("neighbour.log", "x");
        fs::read(watched.path("a.toml")).expect("read");
        fs::read_dir(watched.folder.path()).expect("listed").count();
        watched.is_silent("a neighbour and a reader").await;
    }
}

#[tokio::test]
async fn a_burst_of_changes_is_one() {
    let mut watched = Watched::new(EVENTS, one_file).await;
    for i in 0..50 {
        watched.write("a.toml", &"x".repeat(i));
    }
    timeout(LONG, watched.changes.recv()).await.expect("told").expect("it lives");
    watched.is_silent("the rest of the burst").await;
}

#[tokio::test]
async fn changes_without_end_are_told_before_they_end() {
    let mut watched = Watched::new(EVENTS, one_file).await;
    let path = watched.path("a.toml");
    let (stop, is_stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut size = 0;
        // Always quicker than what would count as quiet.
        while is_stopped.recv_timeout(Duration::from_millis(5)).is_err() {
            size += 1;
            fs::write(&path, "x".repeat(size)).expect("written");
        }
    });
    let told = timeout(LONG, watched.changes.recv()).await;
    stop.send(()).expect("the writer lives");
    writer.join().expect("written");
    assert_eq!(told.expect("told although it goes on"), Some(()));
}

#[tokio::test]
async fn a_kubernetes_swap_of_data_is_told_each_time() {
    fn prepare(folder: &Path) -> Vec<&'static str> {
        for version in ["..1", "..2", "..3"] {
            fs::create_dir(folder.join(version)).expect("folder");
            fs::write(folder.join(version).join("tls.crt"), "same length").expect("written");
        }
        symlink("..1", folder.join("..data")).expect("link");
        symlink("..data/tls.crt", folder.join("tls.crt")).expect("link");
        vec!["tls.crt"]
    }
    for pace in [EVENTS, POLL] {
        let mut watched = Watched::new(pace, prepare).await;
        for version in ["..2", "..3"] {
            symlink(version, watched.path("..tmp")).expect("link");
            fs::rename(watched.path("..tmp"), watched.path("..data")).expect("swapped");
            watched.hears(version).await;
        }
        // The file where the links lead now.
        watched.write("..3/tls.crt", "another length");
        watched.hears("the target").await;
        watched.write("..1/tls.crt", "where they led once");
        watched.is_silent("an old target").await;
    }
}

#[tokio::test]
async fn a_certbot_renewal_in_a_folder_of_folders_is_told() {
    fn prepare(folder: &Path) -> Vec<&'static str> {
        fs::create_dir_all(folder.join("live/x.example")).expect("folder");
        fs::create_dir_all(folder.join("archive/x.example")).expect("folder");
        for n in [1, 2] {
            fs::write(folder.join(format!("archive/x.example/fullchain{n}.pem")), "same").expect("written");
        }
        symlink("../../archive/x.example/fullchain1.pem", folder.join("live/x.example/fullchain.pem")).expect("link");
        vec!["live"]
    }
    for pace in [EVENTS, POLL] {
        let mut watched = Watched::new(pace, prepare).await;
        let live = watched.path("live/x.example/fullchain.pem");
        fs::remove_file(&live).expect("removed");
        symlink("../../archive/x.example/fullchain2.pem", &live).expect("link");
        watched.hears("the link").await;
        watched.write("archive/x.example/fullchain2.pem", "in place");
        watched.hears("the target").await;
        fs::create_dir(watched.path("live/y.example")).expect("folder");
        watched.hears("a new name").await;
        watched.write("live/y.example/fullchain.pem", "new");
        watched.hears("a file in the new folder").await;
    }
}

#[tokio::test]
async fn a_folder_is_told_of_its_entries_but_not_of_hidden_ones() {
    fn prepare(folder: &Path) -> Vec<&'static str> {
        fs::create_dir(folder.join("certs")).expect("folder");
        vec!["certs"]
    }
    for pace in [EVENTS, POLL] {
        let mut watched = Watched::new(pace, prepare).await;
        watched.write("certs/a.crt", "1");
        watched.hears("a new file").await;
        watched.write("certs/.a.crt.swp", "1");
        watched.is_silent("an editor's own").await;
        fs::rename(watched.path("certs/a.crt"), watched.path("certs/b.crt")).expect("renamed");
        watched.hears("another name").await;
        fs::remove_file(watched.path("certs/b.crt")).expect("removed");
        watched.hears("removed").await;
    }
}

#[tokio::test]
async fn a_folder_made_anew_is_watched_again() {
    fn prepare(folder: &Path) -> Vec<&'static str> {
        fs::create_dir_all(folder.join("etc/certs")).expect("folder");
        vec!["etc/certs", "etc/proxy.toml"]
    }
    for pace in [EVENTS, POLL] {
        let mut watched = Watched::new(pace, prepare).await;
        // In one go: the new folder may get the old one's number.
        fs::remove_dir(watched.path("etc/certs")).expect("removed");
        fs::create_dir(watched.path("etc/certs")).expect("folder");
        // Time to find the new folder. Should it not suffice, the look that is due finds the file as well.
        tokio::time::sleep(EVENTS.settle * 3).await;
        let _ = watched.changes.try_recv();
        watched.write("etc/certs/a.crt", "1");
        watched.hears("in the new folder").await;
        fs::remove_dir_all(watched.path("etc")).expect("removed");
        watched.hears("everything removed").await;
        fs::create_dir_all(watched.path("etc/certs")).expect("folder");
        watched.hears("back again").await;
        watched.write("etc/proxy.toml", "x");
        watched.hears("a file that had never been there").await;
        watched.write("etc/certs/a.crt", "2");
        watched.hears("in the newest folder").await;
    }
}

#[tokio::test]
async fn a_link_in_the_middle_of_the_path_is_followed() {
    fn prepare(folder: &Path) -> Vec<&'static str> {
        for release in ["r1", "r2"] {
            fs::create_dir_all(folder.join(release).join("conf")).expect("folder");
            fs::write(folder.join(release).join("conf/proxy.toml"), "same").expect("written");
        }
        symlink("r1", folder.join("current")).expect("link");
        vec!["current/conf/proxy.toml"]
    }
    for pace in [EVENTS, POLL] {
        let mut watched = Watched::new(pace, prepare).await;
        symlink("r2", watched.path("next")).expect("link");
        fs::rename(watched.path("next"), watched.path("current")).expect("swapped");
        watched.hears("the release").await;
        watched.write("r2/conf/proxy.toml", "other");
        watched.hears("the file in it").await;
    }
}

#[tokio::test]
async fn the_set_can_be_replaced_and_untold_changes_are_kept() {
    for pace in [EVENTS, POLL] {
        let mut watched = Watched::new(pace, one_file).await;
        watched.write("b.toml", "1");
        watched.paths.push(watched.path("b.toml"));
        watched.look().await;
        watched.is_silent("the replacement itself").await;
        watched.write("b.toml", "22");
        watched.hears("the added path").await;
        // Changed and replaced at once: looked at by the replacement or by the event, never forgotten.
        watched.write("a.toml", "333");
        watched.paths.pop();
        watched.look().await;
        watched.hears("a change that met a replacement").await;
        watched.write("b.toml", "4444");
        watched.is_silent("a path that was taken out").await;
    }
}

#[tokio::test]
async fn links_that_lead_in_circles_are_no_trouble() {
    fn prepare(folder: &Path) -> Vec<&'static str> {
        symlink("b", folder.join("a")).expect("link");
        symlink("a", folder.join("b")).expect("link");
        symlink(".", folder.join("self")).expect("link");
        vec!["a", "self"]
    }
    let mut watched = Watched::new(EVENTS, prepare).await;
    fs::remove_file(watched.path("a")).expect("removed");
    watched.write("a", "a file now");
    watched.hears("the circle is broken").await;
}

#[tokio::test]
async fn it_ends_with_its_owner() {
    let watched = Watched::new(EVENTS, one_file).await;
    let Watched { watcher, mut changes, folder, paths: _ } = watched;
    drop(watcher);
    assert_eq!(timeout(LONG, changes.recv()).await.expect("ended"), None);
    drop(folder);
}
