// A password for a cookie.
"use strict";

const form = document.getElementById("login");
const message = document.getElementById("message");
const password = document.getElementById("password");

form.addEventListener("submit", async (submit) => {
  submit.preventDefault();
  let response;
  try {
    response = await fetch("/browser/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ password: password.value }),
    });
  } catch {
    message.textContent = "The server does not answer.";
    return;
  }
  if (response.ok) return location.reload();
  const body = await response.json().catch(() => ({}));
  message.textContent = body.error ?? `The server says ${response.status}.`;
  password.select();
});
