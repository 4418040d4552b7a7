//! Users and groups, for administrators.

use std::collections::{HashMap, HashSet};

use axum::extract::{Path, State};
use maud::html;
use serde_json::{Value, json};

use super::account::may;
use super::page::{Section, ago, csrf};
use super::{Sent, Shown, Visit, body, done, refused};
use crate::node::connect::groups;
use crate::node::manage::users;
use crate::node::parts::Parts;
use crate::node::store::{Role, Scope};

const ROLES: [Role; 3] = [Role::Viewer, Role::Publisher, Role::Administrator];

pub(super) async fn users(State(parts): State<Parts>, visit: Visit) -> Shown {
    visit.manager.may_everywhere(Scope::Admin)?;
    let all = parts.store.users().await?;
    let action = visit.at("/connect/users");
    let shown = html! {
        div.row.head { h1 { "Users" } input type="search" placeholder="Name or mail" aria-label="Search users" data-filter; }
        section.card.wide aria-label="All users" {
            table.stack {
                thead { tr { th scope="col" { "User" } th scope="col" { "Name" } th scope="col" { "Role" } th scope="col" { "Since" } th scope="col" { "" } } }
                tbody {
                    @for user in &all {
                        @let name = format!("{} {}", user.first_name, user.last_name);
                        tr data-row=(format!("{} {name} {}", user.username, user.email)) {
                            td data-label="User" { strong { (user.username) } " " @if user.locked_at.is_some() { span.tag.bad { "locked" } } @if !user.has_password { span.tag { "no password" } } }
                            td data-label="Name" { (name.trim()) @if !user.email.is_empty() { div.quiet { (user.email) } } }
                            td data-label="Role" {
                                form method="post" action=(action) {
                                    (csrf(&visit.token))
                                    input type="hidden" name="user" value=(user.guid);
                                    select name="role" aria-label={ "Role of " (user.username) } {
                                        @for role in ROLES { option value=(role.as_str()) selected[user.role == role] { (role.as_str()) } }
                                    }
                                    button name="do" value="role" { "Save" }
                                }
                            }
                            td.quiet data-label="Since" { (ago(user.created_at)) }
                            td {
                                @if user.id != visit.user().id {
                                    form method="post" action=(action) {
                                        (csrf(&visit.token))
                                        input type="hidden" name="user" value=(user.guid);
                                        @if user.locked_at.is_some() { button name="do" value="unlock" { "Unlock" } }
                                        @else { button.danger name="do" value="lock" { "Lock" span.unseen { " " (user.username) } } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        div.grid {
            form.card method="post" action=(action) autocomplete="off" {
                (csrf(&visit.token))
                h2 { "New user" }
                label { "User name" input name="username" autocapitalize="none" spellcheck="false" required; }
                label { "Mail" input type="email" name="email"; }
                label { "First name" input name="first_name"; }
                label { "Last name" input name="last_name"; }
                label { "Role" select name="role" { @for role in ROLES { option value=(role.as_str()) { (role.as_str()) ": " (may(role)) } } } }
                label { "Password" small { "8 characters or more; empty: they cannot log in yet" } input type="password" name="password" autocomplete="new-password"; }
                button.primary name="do" value="create" { "Make user" }
            }
            form.card method="post" action=(action) autocomplete="off" {
                (csrf(&visit.token))
                h2 { "Another password" }
                p.quiet { "Ends all their sessions." }
                label { "User" select name="user" { @for user in &all { option value=(user.guid) { (user.username) } } } }
                label { "Password" input type="password" name="password" autocomplete="new-password" required; }
                button name="do" value="password" { "Set" }
            }
        }
    };
    Ok(visit.page("Users", Section::Users, &shown))
}

pub(super) async fn change_user(State(parts): State<Parts>, Sent { visit, form }: Sent) -> Shown {
    let (manager, state) = (visit.manager.clone(), State(parts));
    let user = Path(form.text("user").to_owned());
    let answer = match form.text("do") {
        "create" => {
            let password = Some(form.raw("password")).filter(|text| !text.is_empty());
            let wish = json!({
                "username": form.text("username"), "email": form.text("email"), "first_name": form.text("first_name"),
                "last_name": form.text("last_name"), "user_role": form.text("role"), "password": password,
            });
            users::create(state, manager, body(wish)?).await
        }
        "role" => users::change(state, manager, user, body(json!({ "user_role": form.text("role") }))?).await,
        "password" => users::password(state, manager, user, body(json!({ "password": form.raw("password") }))?).await,
        lock => users::lock(state, manager, user, body(json!({ "locked": lock == "lock" }))?).await,
    };
    done(answer)?;
    Ok(visit.to("/connect/users"))
}

pub(super) async fn groups(State(parts): State<Parts>, visit: Visit) -> Shown {
    visit.manager.may_everywhere(Scope::Admin)?;
    let all = parts.store.groups().await?;
    let users = parts.store.users().await?;
    let mut members: HashMap<i64, HashSet<i64>> = HashMap::new();
    for (group, user) in parts.store.memberships().await? {
        members.entry(group).or_default().insert(user);
    }
    let members = all.iter().map(|group| {
        let own = members.get(&group.id);
        users.iter().filter(|user| own.is_some_and(|own| own.contains(&user.id))).collect::<Vec<_>>()
    });
    let action = visit.at("/connect/groups");
    let shown = html! {
        h1 { "Groups" }
        datalist id="users" { @for user in &users { option value=(user.username) {} } }
        div.grid {
            @for (group, members) in all.iter().zip(members) {
                section.card aria-label=(group.name) {
                    div.row {
                        h2 { (group.name) } span.quiet { (members.len()) @if members.len() == 1 { " member" } @else { " members" } }
                        form method="post" action=(action) {
                            (csrf(&visit.token))
                            input type="hidden" name="group" value=(group.guid);
                            button.plain name="do" value="remove" data-ask={ "Remove the group “" (group.name) "”, and what it may see?" } { "Remove group" span.unseen { " " (group.name) } }
                        }
                    }
                    table { tbody {
                        @for user in &members {
                            tr {
                                td { (user.username) }
                                td.number {
                                    form method="post" action=(action) {
                                        (csrf(&visit.token))
                                        input type="hidden" name="group" value=(group.guid);
                                        input type="hidden" name="user" value=(user.guid);
                                        button name="do" value="take" { "Take out" span.unseen { " " (user.username) } }
                                    }
                                }
                            }
                        }
                    } }
                    form.inline method="post" action=(action) {
                        (csrf(&visit.token))
                        input type="hidden" name="group" value=(group.guid);
                        label { "Add" input name="user" list="users" autocomplete="off" placeholder="User name" required; }
                        button name="do" value="add" { "Add" }
                    }
                }
            }
            form.card method="post" action=(action) {
                (csrf(&visit.token))
                h2 { "New group" }
                label { "Name" input name="name" maxlength="200" autocomplete="off" required; }
                button.primary name="do" value="create" { "Make group" }
            }
        }
    };
    Ok(visit.page("Groups", Section::Groups, &shown))
}

pub(super) async fn change_group(State(parts): State<Parts>, Sent { visit, form }: Sent) -> Shown {
    let (manager, state) = (visit.manager.clone(), State(parts.clone()));
    let group = form.text("group").to_owned();
    let find = async |name: &str| crate::node::manage::find_user(&parts, name).await;
    match form.text("do") {
        "create" => done(groups::create(state, manager, body(json!({ "name": form.text("name") }))?).await)?,
        "remove" => drop(groups::remove(state, manager, Path(group)).await.map_err(refused)?),
        "add" => {
            let wish: Value = json!({ "user_guid": find(form.text("user")).await?.guid });
            done(groups::add(state, manager, Path(group), body(wish)?).await)?;
        }
        _ => drop(groups::take(state, manager, Path((group, form.text("user").to_owned()))).await.map_err(refused)?),
    }
    Ok(visit.to("/connect/groups"))
}
