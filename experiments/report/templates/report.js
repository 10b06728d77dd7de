"use strict";
// A small viewer of closed surfaces: WebGL 2, parallel projection (so that the scale bar holds everywhere), drawn on demand.

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal;
uniform vec3 size; uniform mat3 turn; uniform vec2 scale; uniform float depth;
out vec3 facing;
void main() {
  vec3 p = turn * ((position - 0.5) * size);
  facing = turn * normal;
  gl_Position = vec4(p.xy * scale, -p.z * depth, 1.0);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 facing; uniform vec3 colour; uniform float opacity; out vec4 pixel;
void main() {
  vec3 n = normalize(facing) * (gl_FrontFacing ? 1.0 : -1.0);
  float light = 0.45 + 0.55 * max(dot(n, normalize(vec3(-0.4, 0.6, 0.8))), 0.0);
  float shine = opacity < 1.0 ? 0.0 : 0.25 * pow(max(dot(n, normalize(vec3(-0.2, 0.35, 0.95))), 0.0), 24.0);
  float rim = pow(1.0 - abs(n.z), 1.5);
  float alpha = opacity < 1.0 ? clamp(opacity * mix(0.45, 1.8, rim), 0.0, 1.0) : 1.0;
  pixel = vec4((colour * light + shine) * alpha, alpha);
}`;
const START = { spin: -0.6, lift: 0.45, zoom: 1 };

function bytes(text) { return Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer; }

function rgb(hex) { return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255); }

function program(gl) {
  const result = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(result, shader);
  }
  gl.linkProgram(result);
  return gl.getProgramParameter(result, gl.LINK_STATUS) ? result : null;
}

function upload(gl, shader, mesh) {
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  for (const [name, data, kind] of [["position", mesh.positions, gl.UNSIGNED_SHORT], ["normal", mesh.normals, gl.BYTE]]) {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, bytes(data), gl.STATIC_DRAW);
    const place = gl.getAttribLocation(shader, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 3, kind, true, 0, 0);
  }
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, bytes(mesh.indices), gl.STATIC_DRAW);
  return { array, count: 3 * mesh.faces, colour: rgb(mesh.colour), opacity: mesh.opacity, visible: true };
}

// Turned about z by `spin`, then seen from `lift` above the xy plane: z always points up. Columns are where x, y, z go.
function turned({ spin, lift }) {
  const [c, s, cl, sl] = [Math.cos(spin), Math.sin(spin), Math.cos(lift), Math.sin(lift)];
  return [c, s * sl, -s * cl, -s, c * sl, -c * cl, 0, cl, sl];
}

function draw(gl, shader, meshes, size, view, unit) {
  const at = name => gl.getUniformLocation(shader, name);
  const { width, height } = gl.canvas;
  gl.viewport(0, 0, width, height);
  gl.clearColor(0, 0, 0, 0);
  gl.depthMask(true);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.useProgram(shader);
  gl.uniform3fv(at("size"), size);
  gl.uniformMatrix3fv(at("turn"), false, turned(view));
  gl.uniform2f(at("scale"), 2 * unit / width, 2 * unit / height);
  gl.uniform1f(at("depth"), 1 / Math.hypot(...size));
  const pass = (mesh, cull) => {
    if (!mesh.visible) return;
    gl.cullFace(cull);
    gl.uniform3fv(at("colour"), mesh.colour);
    gl.uniform1f(at("opacity"), mesh.opacity);
    gl.bindVertexArray(mesh.array);
    gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
  };
  gl.enable(gl.DEPTH_TEST);
  gl.enable(gl.CULL_FACE);
  gl.disable(gl.BLEND);
  meshes.filter(mesh => mesh.opacity === 1).forEach(mesh => pass(mesh, gl.BACK));
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.depthMask(false);
  // The far walls from the outermost in, then the near ones from the innermost out: nested bodies blend rightly.
  const glassy = meshes.filter(mesh => mesh.opacity < 1);
  glassy.forEach(mesh => pass(mesh, gl.FRONT));
  glassy.reverse().forEach(mesh => pass(mesh, gl.BACK));
}

function drawMarks(box, view, unit, ratio) {
  const perMicron = unit / ratio, bar = box.querySelector(".bar"), aim = 120 / perMicron;
  const power = 10 ** Math.floor(Math.log10(aim));
  const length = [5, 2, 1].find(n => n * power <= aim) * power;
  bar.querySelector("span").textContent = `${Number(length.toPrecision(1))} µm`;
  bar.querySelector("i").style.width = `${length * perMicron}px`;
  const turn = turned(view);
  box.querySelectorAll(".triad g").forEach((axis, k) => {
    const [x, y] = [turn[3 * k], -turn[3 * k + 1]];
    axis.querySelector("line").setAttribute("x2", 24 * x);
    axis.querySelector("line").setAttribute("y2", 24 * y);
    axis.querySelector("text").setAttribute("x", 34 * x);
    axis.querySelector("text").setAttribute("y", 34 * y);
  });
}

function show(box) {
  const scene = JSON.parse(document.getElementById(box.dataset.scene).textContent);
  const canvas = box.querySelector("canvas");
  const gl = canvas.getContext("webgl2", { antialias: true, alpha: true, preserveDrawingBuffer: true });
  const shader = gl && program(gl);
  if (!shader) {
    box.querySelector(".stage").hidden = box.querySelector(".controls").hidden = true;
    box.querySelector("[data-no-webgl]").hidden = false;
    return;
  }
  const meshes = scene.meshes.map(mesh => upload(gl, shader, mesh));
  const view = { ...START };
  let waiting = false;
  const render = () => {
    waiting = false;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    // pixels a µm: a body within its box fits, whatever way it is turned
    const unit = view.zoom * 0.9 * Math.min(canvas.width, canvas.height) / Math.max(...scene.size_um);
    draw(gl, shader, meshes, scene.size_um, view, unit);
    drawMarks(box, view, unit, ratio);
  };
  const refresh = () => { if (!waiting) { waiting = true; requestAnimationFrame(render); } };
  box.querySelector(".bar").hidden = false;
  box.querySelector(".triad").removeAttribute("hidden");
  listen(box, canvas, view, meshes, refresh);
  new ResizeObserver(refresh).observe(canvas);
  refresh();
}

function listen(box, canvas, view, meshes, refresh) {
  const rotate = (spin, lift) => {
    view.spin += spin;
    view.lift = Math.min(Math.max(view.lift + lift, -Math.PI / 2), Math.PI / 2);
    refresh();
  };
  const zoom = factor => {
    if (factor) view.zoom = Math.min(Math.max(view.zoom * factor, 0.3), 20); else Object.assign(view, START);
    refresh();
  };
  canvas.addEventListener("pointerdown", event => { canvas.setPointerCapture(event.pointerId); canvas.focus({ preventScroll: true }); });
  canvas.addEventListener("pointermove", event => {
    if (canvas.hasPointerCapture(event.pointerId)) rotate(event.movementX * 0.01, event.movementY * 0.01);
  });
  canvas.addEventListener("wheel", event => {
    if (document.activeElement !== canvas) return;  // else the page scrolls, as it should
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0015));
  }, { passive: false });
  const keys = {
    ArrowLeft: () => rotate(-0.1, 0), ArrowRight: () => rotate(0.1, 0), ArrowUp: () => rotate(0, -0.1), ArrowDown: () => rotate(0, 0.1),
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), "0": () => zoom(0),
  };
  canvas.addEventListener("keydown", event => {
    if (keys[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); keys[event.key](); }
  });
  box.querySelectorAll("[data-zoom]").forEach(button => button.addEventListener("click", () => zoom(Number(button.dataset.zoom))));
  box.querySelectorAll("[data-mesh]").forEach(input => input.addEventListener("change", () => {
    meshes[Number(input.dataset.mesh)].visible = input.checked;
    refresh();
  }));
}

document.querySelectorAll("[data-scene]").forEach(show);
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => { part.open = true; }));
