/*! Fanfare's client: the plain protocol in browsers and Node. Manual: fanfare.d.ts, source: fanfare.src.js */
const e=[1e3,1002,1003,1007,1008,1009,4002,4003],n=()=>{},t=(e,n)=>Object.assign(Error(n),{code:e})
;export function Fanfare(o="/ws/connect",i={}){
const s=this,c=new Map,r=new Map,a={},{minDelay:l=500,maxDelay:u=3e4,getToken:f,WebSocket:d=globalThis.WebSocket}=i
;let p,h,m,b,y,g,v,w,{token:T}=i,_=0,M=0,k=0,E=0;function x(e,n,t){try{e?.[n]?.(t)}catch(e){
queueMicrotask(()=>{throw e})}}
(o=new URL(o,globalThis.location?.href)).protocol=o.protocol.replace("http","ws")
;const S=(e,n)=>a[e]?.forEach(e=>x({f:e},"f",n)),D=(e,n)=>S("state",{state:s.state=e,...n});function O(e,n,o){
if("closed"===s.state)return o(t("disconnected","closed"));let i;try{i=JSON.stringify({...e,id:++_})}catch(e){
return o(t("bad_request",e.message))}r.set(_,{text:i,done:n,fail:o,sent:h}),h&&p.send(i)}
const j=e=>new Promise((n,t)=>O(e,n,t));async function q(e){
if(M>=1e3)throw t("too_many_commands","too many commands pending");M++;try{return await j(e)}finally{M--}}
function U(e){const t={channel:e,options:{},given:!0,failures:0,unsubscribe:()=>{c.get(e)===t&&(c.delete(e),
clearTimeout(t.retry),h&&O({type:"unsubscribe",channel:e},n,n))}};return c.set(e,t),t}function J(e){
const{channel:n,options:t,position:o}=e,i=()=>c.get(n)===e;clearTimeout(e.retry),e.live=!1,O({
type:"subscribe",channel:n,recover:o,presence:t.presence},n=>i()&&N(e,n),o=>{if("disconnected"!==o.code&&i()){
if(/^((broker_)?unavailable|rate_limited)$/.test(o.code)){
const n=Math.min(u,2e3*2**e.failures++)*(1+Math.random());return void(e.retry=setTimeout(()=>i()&&J(e),n))}
c.delete(n),x(t,"onUnsubscribed",o)}})}function N(e,n){clearTimeout(e.retry),e.live=!0,e.failures=0,
e.position={epoch:n.epoch??"",offset:n.offset??0},x(e.options,"onSubscribed",n),
!1===n.recovered&&x(e.options,"onGap",{...n,dropped:null})}function W(e){const{channel:n,position:t}=e
;e.live&&c.get(n)===e&&x(e.options,"onSubscribed",{type:"subscribed",channel:n,...t})}function C(e){
const{type:n,channel:o,id:i}=e,a=c.get(o),l=r.get(i);if("connected"===n&&function(e){s.clientId=e.client_id,
h=!0,m=Date.now(),v=1e3*(e.ping_interval||25),w=1e3*(e.inactivity_timeout||60);for(const n in e.channels){
const t=c.get(n)??U(n);t.live=!t.position&&!t.options.presence,t.position??=e.channels[n]}
const n=[...c.values()].filter(e=>e.live&&!e.given);c.forEach(e=>e.live||J(e)),r.forEach(e=>{
e.sent||p.send(e.text),e.sent=!0}),F(e.expires_in),D("connected"),n.forEach(W)}(e),clearTimeout(y),
y=setTimeout(()=>{p.send('{"type":"ping"}'),y=setTimeout(G,w,4004,"silence")},v),
r.delete(i))return"error"===n?l.fail(t(e.code,e.message)):l.done(e);if("subscribed"===n)return N(a??U(o),e)
;if("unsubscribed"===n)c.delete(o);else if(o&&(!a||!function(e,{type:n,epoch:t,offset:o}){
const i=e.position??{};if(!e.live)return!1;if(t&&t!==i.epoch)e.position={epoch:t,offset:o
};else if(o&&"publication"===n){if(o<=i.offset)return!1;e.position={...i,offset:o}}return!0}(a,e)))return
;x(a?.options,"on"+n[0].toUpperCase()+n.slice(1),e),S(n,e)}function F(e){clearTimeout(g),
f&&e&&(g=setTimeout(async()=>{try{T=await f(),F((await j({type:"refresh",token:T})).expires_in)}catch{
h&&F(Math.max(e/5,1))}},Math.min(800*e,2**31-1)))}function G(e,t){p&&(p.onmessage=p.onclose=null,p.onerror=n,
p.close()),I(e,t)}function I(n,o){[b,y,g].forEach(clearTimeout),h&&Date.now()-m>u&&(E=0),
!f||4001!==n&&h||(T=null),k++,h=p=b=null
;const i=e.includes(n)||4001===n&&!f,a=1011===n||1013===n,d=Math.min(u,l*2**E++)*(a+Math.random())
;i||(b=setTimeout(s.connect,d)),c.forEach(e=>{
clearTimeout(e.retry),e.live=!1,!1===e.options.recover&&(e.position=void 0)}),r.forEach((e,n)=>{
(i||e.sent)&&(r.delete(n),e.fail(t("disconnected",o)))}),D(i?"closed":"connecting",{code:n,reason:o,delay:d})}
s.connect=async()=>{if("closed"!==s.state&&!b)return;clearTimeout(b),b=null;const e=++k;D("connecting");try{
f&&(T??=await f()),e===k&&(p=new d(o,["fanfare.json",...T?["bearer."+T]:[]]))}catch(n){
e===k&&I(1011,n.message)}e===k&&(p.onmessage=e=>C(JSON.parse(e.data)),p.onclose=e=>I(e.code,e.reason),
p.onerror=()=>e===k&&!h&&G(1006,"refused"),y=setTimeout(G,2e4,4004,"no answer"))},s.close=()=>G(1e3,"closed"),
s.on=(e,n)=>((a[e]??=new Set).add(n),()=>a[e].delete(n)),s.subscribe=(e,n={})=>{const o=c.get(e)??U(e)
;if(!o.given)throw t("already_subscribed",e);return Object.assign(o,{options:n,given:!1}),
n.recover?.epoch&&(o.position=n.recover),!h||o.live&&!n.presence?h&&queueMicrotask(()=>W(o)):J(o),o},
s.publish=(e,n,t)=>q({...t,type:"publish",channel:e,data:n}),s.history=(e,n)=>q({...n,type:"history",channel:e
}),s.presence=e=>q({type:"presence",channel:e}),s.state="closed",s.connect()}
