/*! Fanfare's client: the plain protocol in browsers and Node. Manual: fanfare.d.ts, source: fanfare.src.js */
const e=[1e3,1002,1003,1007,1008,1009,4002,4003],t=()=>{},n=(e,t)=>Object.assign(Error(t),{code:e})
;export function Fanfare(o="/ws/connect",i={}){
const s=this,c=new Map,r=new Map,a={},{minDelay:l=500,maxDelay:u=3e4,getToken:f,WebSocket:d=globalThis.WebSocket}=i
;let p,h,m,y,b,g,v,w,{token:T}=i,_=0,M=0,k=0,x=0;function E(e,t,n){try{e?.[t]?.(n)}catch(e){
queueMicrotask(()=>{throw e})}}
(o=new URL(o,globalThis.location?.href)).protocol=o.protocol.replace("http","ws")
;const S=(e,t)=>a[e]?.forEach(e=>E({f:e},"f",t)),D=(e,t)=>S("state",{state:s.state=e,...t});function O(e,t,o){
if("closed"===s.state)return o(n("disconnected","closed"));let i;try{i=JSON.stringify({...e,id:++_})}catch(e){
return o(n("bad_request",e.message))}r.set(_,{text:i,done:t,fail:o,sent:h}),h&&p.send(i)}
const j=e=>new Promise((t,n)=>O(e,t,n));async function U(e){
if(M>=1e3)throw n("too_many_commands","too many commands pending");M++;try{return await j(e)}finally{M--}}
function q(e){const n={channel:e,options:{},given:!0,failures:0,unsubscribe:()=>{c.get(e)===n&&(c.delete(e),
clearTimeout(n.retry),h&&O({type:"unsubscribe",channel:e},t,t))}};return c.set(e,n),n}function J(e){
const{channel:t,options:n,position:o}=e,i=()=>c.get(t)===e;clearTimeout(e.retry),e.live=!1,O({
type:"subscribe",channel:t,recover:o,presence:n.presence},t=>i()&&N(e,t),o=>{if("disconnected"!==o.code&&i()){
if(/^((broker_)?unavailable|rate_limited)$/.test(o.code)){
const t=Math.min(u,2e3*2**e.failures++)*(1+Math.random());return void(e.retry=setTimeout(()=>i()&&J(e),t))}
c.delete(t),E(n,"onUnsubscribed",o)}})}function N(e,t){clearTimeout(e.retry),e.live=!0,e.failures=0,
e.position={epoch:t.epoch??"",offset:t.offset??0},E(e.options,"onSubscribed",t),
!1===t.recovered&&E(e.options,"onGap",{...t,dropped:null})}function W(e){
const{type:t,channel:o,id:i}=e,a=c.get(o),l=r.get(i);if("connected"===t&&function(e){s.clientId=e.client_id,
h=!0,m=Date.now(),v=1e3*(e.ping_interval||25),w=1e3*(e.inactivity_timeout||60);for(const t in e.channels){
const n=c.get(t)??q(t);n.live=!n.position&&!n.options.presence,n.position??=e.channels[t]}
c.forEach(e=>e.live||J(e)),r.forEach(e=>{e.sent||p.send(e.text),e.sent=!0}),C(e.expires_in),D("connected")
}(e),clearTimeout(b),b=setTimeout(()=>{p.send('{"type":"ping"}'),b=setTimeout(F,w,4004,"silence")},v),
r.delete(i))return"error"===t?l.fail(n(e.code,e.message)):l.done(e);if("subscribed"===t)return N(a??q(o),e)
;if("unsubscribed"===t)c.delete(o);else if(o&&(!a||!function(e,{type:t,epoch:n,offset:o}){
const i=e.position??{};if(!e.live)return!1;if(n&&n!==i.epoch)e.position={epoch:n,offset:o
};else if(o&&"publication"===t){if(o<=i.offset)return!1;e.position={...i,offset:o}}return!0}(a,e)))return
;E(a?.options,"on"+t[0].toUpperCase()+t.slice(1),e),S(t,e)}function C(e){clearTimeout(g),
f&&e&&(g=setTimeout(async()=>{try{T=await f(),C((await j({type:"refresh",token:T})).expires_in)}catch{
h&&C(Math.max(e/5,1))}},Math.min(800*e,2**31-1)))}function F(e,n){p&&(p.onmessage=p.onclose=null,p.onerror=t,
p.close()),G(e,n)}function G(t,o){[y,b,g].forEach(clearTimeout),h&&Date.now()-m>u&&(x=0),
!f||4001!==t&&h||(T=null),k++,h=p=y=null
;const i=e.includes(t)||4001===t&&!f,a=1011===t||1013===t,d=Math.min(u,l*2**x++)*(a+Math.random())
;i||(y=setTimeout(s.connect,d)),c.forEach(e=>{
clearTimeout(e.retry),e.live=!1,!1===e.options.recover&&(e.position=void 0)}),r.forEach((e,t)=>{
(i||e.sent)&&(r.delete(t),e.fail(n("disconnected",o)))}),D(i?"closed":"connecting",{code:t,reason:o,delay:d})}
s.connect=async()=>{if("closed"!==s.state&&!y)return;clearTimeout(y),y=null;const e=++k;D("connecting");try{
f&&(T??=await f())}catch(t){e===k&&G(1011,t.message)}
e===k&&(p=new d(o,["fanfare.json",...T?["bearer."+T]:[]]),p.onmessage=e=>W(JSON.parse(e.data)),
p.onclose=e=>G(e.code,e.reason),
p.onerror=()=>e===k&&!h&&F(1006,"refused"),b=setTimeout(F,2e4,4004,"no answer"))},s.close=()=>F(1e3,"closed"),
s.on=(e,t)=>((a[e]??=new Set).add(t),()=>a[e].delete(t)),s.subscribe=(e,t={})=>{const o=c.get(e)??q(e)
;if(!o.given)throw n("already_subscribed",e);return Object.assign(o,{options:t,given:!1}),
t.recover?.epoch&&(o.position=t.recover),!h||o.live&&!t.presence||J(o),o},s.publish=(e,t,n)=>U({...n,
type:"publish",channel:e,data:t}),s.history=(e,t)=>U({...t,type:"history",channel:e}),s.presence=e=>U({
type:"presence",channel:e}),s.state="closed",s.connect()}
