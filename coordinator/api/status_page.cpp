// The status page at /: replicas, pages, compression by layer and head, from /v1/cluster once a second.
#include "coordinator/api/http_api.h"

namespace accrete::coordinator {

const char* const kStatusPage = R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Accrete</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.3rem;margin:0 0 .2rem} .sub{color:#59636e;margin:0 0 1.2rem}
section{border:1px solid #d1d9e0;border-radius:8px;padding:1rem;margin-bottom:1rem}
h2{font-size:1rem;margin:0 0 .5rem;display:flex;justify-content:space-between} .tag{font-weight:normal;color:#59636e}
table{border-collapse:collapse;width:100%} th,td{text-align:right;padding:.15rem .5rem} th:first-child,td:first-child{text-align:left}
th{color:#59636e;font-weight:normal} .bar{background:#eef1f4;height:8px;border-radius:4px;min-width:8rem} .bar i{display:block;height:8px;border-radius:4px;background:#2f6feb}
.facts{display:flex;gap:2rem;flex-wrap:wrap;margin:.3rem 0 .8rem} .facts b{display:block;font-size:1.2rem}
canvas{image-rendering:pixelated;width:100%;height:160px;border-radius:4px;background:#eef1f4} #error{color:#b42318}
</style></head><body>
<h1>Accrete</h1><p class="sub" id="sub">waiting for /v1/cluster</p><p id="error"></p><div id="replicas"></div>
<script>
const text = (tag, value, cls) => { const e = document.createElement(tag); e.textContent = value; if (cls) e.className = cls; return e; };
const bytes = n => n > 2**30 ? (n/2**30).toFixed(1)+' GiB' : (n/2**20).toFixed(1)+' MiB';
function facts(items) { const d = document.createElement('div'); d.className = 'facts';
  for (const [name, value] of items) { const s = text('div', name); s.prepend(text('b', value)); d.append(s); } return d; }
function heat(slots, layers, heads) { const c = document.createElement('canvas'); c.width = layers; c.height = heads;
  const g = c.getContext('2d'), top = Math.max(1, ...slots);
  for (let l = 0; l < layers; l++) for (let h = 0; h < heads; h++) { const v = slots[l*heads+h]/top;
    g.fillStyle = `hsl(215 80% ${96-56*v}%)`; g.fillRect(l, h, 1, 1); } return c; }
function replica(r, model) { const s = document.createElement('section'), p = r.report || {}, h = document.createElement('h2');
  h.append(text('span', `${r.id}  ${r.model}`), text('span', `${r.state} · ${r.name} · TP ${r.shape.tensor_parallel} × PP ${r.shape.pipeline_parallel}`, 'tag'));
  s.append(h, facts([['running', p.running||0], ['waiting', p.waiting||0], ['cached tokens', p.cached_tokens||0],
    ['compression', (p.mean_slots_ratio||1).toFixed(2)+'×'], ['cache in use', bytes(+(p.kv_bytes_in_use||0))], ['saved', bytes(+(p.kv_bytes_saved||0))]]));
  const t = document.createElement('table'); const head = document.createElement('tr');
  for (const n of ['rank','host','layers','KV heads','pages free','of','used']) head.append(text('th', n)); t.append(head);
  r.shape.ranks.forEach((k, i) => { const free = +((p.ranks||[])[i]||{}).pages_free, total = +k.pages_total, tr = document.createElement('tr');
    for (const v of [k.rank, k.host, `${k.layer_begin}–${k.layer_end-1}`, `${k.kv_head_begin}–${k.kv_head_end-1}`, free, total]) tr.append(text('td', v));
    const td = document.createElement('td'), b = text('div', '', 'bar'), f = document.createElement('i'); f.style.width = (100*(1-free/total))+'%';
    b.append(f); td.append(b); tr.append(td); t.append(tr); });
  s.append(t);
  const slots = p.head_slots||[];
  if (slots.length && Math.max(...slots) > 0) s.append(text('p', `mean slots of open sequences, layers across, KV heads down; most ${Math.max(...slots).toFixed(0)}`, 'tag'), heat(slots, model.layers, model.kv_heads));
  return s; }
async function tick() { try {
  const a = await fetch('v1/cluster', {headers: window.key ? {Authorization: 'Bearer '+window.key} : {}});
  if (a.status === 401) { window.key = prompt('API key'); return; }
  const c = await a.json(); document.getElementById('error').textContent = '';
  document.getElementById('sub').textContent = `version ${c.version} · ${c.replicas.length} replica(s) · ${c.queued||0} queued`;
  document.getElementById('replicas').replaceChildren(...c.replicas.map(r => replica(r, c.models.find(m => m.name === r.model)||{})));
} catch (e) { document.getElementById('error').textContent = 'the coordinator does not answer: '+e; } }
tick(); setInterval(tick, 1000);
</script></body></html>
)html";

}  // namespace accrete::coordinator
