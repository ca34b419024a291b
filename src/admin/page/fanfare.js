/*! Fanfare's client: the plain protocol in browsers and Node. Manual: fanfare.d.ts, source: fanfare.src.js */
const e=[1e3,1002,1003,1007,1008,1009,4002,4003],n=()=>{},t=(e,n)=>Object.assign(Error(n),{code:e})
;export function Fanfare(o="/ws/connect",i={}){
const s=this,c=new Map,r=new Map,a={},{minDelay:l=500,maxDelay:u=3e4,getToken:d,WebSocket:f=globalThis.WebSocket}=i
;let p,h,m,y,b,g,v,w,{token:T}=i,_=0,M=0,x=0,E=0
;(o=new URL(o,globalThis.location?.href)).protocol=o.protocol.replace("http","ws")
;const k=(e,n)=>a[e]?.forEach(e=>e(n)),S=(e,n)=>k("state",{state:s.state=e,...n});function D(e,n,o){
if("closed"===s.state)return o(t("disconnected","closed"));let i;try{i=JSON.stringify({...e,id:++_})}catch(e){
return o(t("bad_request",e.message))}r.set(_,{text:i,done:n,fail:o,sent:h}),h&&p.send(i)}
const O=e=>new Promise((n,t)=>D(e,n,t));async function j(e){
if(M>=1e3)throw t("too_many_commands","too many commands pending");M++;try{return await O(e)}finally{M--}}
function U(e){const t={channel:e,options:{},given:!0,failures:0,unsubscribe:()=>{c.get(e)===t&&(c.delete(e),
clearTimeout(t.retry),h&&D({type:"unsubscribe",channel:e},n,n))}};return c.set(e,t),t}function J(e){
const{channel:n,options:t,position:o}=e,i=()=>c.get(n)===e;clearTimeout(e.retry),e.live=!1,D({
type:"subscribe",channel:n,recover:o,presence:t.presence},n=>i()&&N(e,n),o=>{if("disconnected"!==o.code&&i()){
if(/^((broker_)?unavailable|rate_limited)$/.test(o.code)){
const n=Math.min(u,2e3*2**e.failures++)*(1+Math.random());return void(e.retry=setTimeout(()=>i()&&J(e),n))}
c.delete(n),t.onUnsubscribed?.(o)}})}function N(e,n){clearTimeout(e.retry),e.live=!0,e.failures=0,e.position={
epoch:n.epoch??"",offset:n.offset??0},e.options.onSubscribed?.(n),!1===n.recovered&&e.options.onGap?.({...n,
dropped:null})}function W(e){const{type:n,channel:o,id:i}=e,a=c.get(o),l=r.get(i)
;if("connected"===n&&function(e){s.clientId=e.client_id,h=!0,m=Date.now(),v=1e3*(e.ping_interval||25),
w=1e3*(e.inactivity_timeout||60);for(const n in e.channels){const t=c.get(n)??U(n)
;t.live=!t.position&&!t.options.presence,t.position??=e.channels[n]}c.forEach(e=>e.live||J(e)),r.forEach(e=>{
e.sent||p.send(e.text),e.sent=!0}),q(e.expires_in),S("connected")}(e),clearTimeout(b),b=setTimeout(()=>{
p.send('{"type":"ping"}'),b=setTimeout(C,w,4004,"silence")
},v),r.delete(i))return"error"===n?l.fail(t(e.code,e.message)):l.done(e)
;if("subscribed"===n)return N(a??U(o),e)
;if("unsubscribed"===n)c.delete(o);else if(o&&(!a||!function(e,{type:n,epoch:t,offset:o}){
const i=e.position??{};if(!e.live)return!1;if(t&&t!==i.epoch)e.position={epoch:t,offset:o
};else if(o&&"publication"===n){if(o<=i.offset)return!1;e.position={...i,offset:o}}return!0}(a,e)))return
;a?.options["on"+n[0].toUpperCase()+n.slice(1)]?.(e),k(n,e)}function q(e){clearTimeout(g),
d&&e&&(g=setTimeout(async()=>{try{T=await d(),q((await O({type:"refresh",token:T})).expires_in)}catch{
h&&q(Math.max(e/5,1))}},Math.min(800*e,2**31-1)))}function C(e,t){p&&(p.onmessage=p.onclose=null,p.onerror=n,
p.close()),F(e,t)}function F(n,o){[y,b,g].forEach(clearTimeout),h&&Date.now()-m>u&&(E=0),
!d||4001!==n&&h||(T=null),x++,h=p=y=null
;const i=e.includes(n)||4001===n&&!d,a=1011===n||1013===n,f=Math.min(u,l*2**E++)*(a+Math.random())
;i||(y=setTimeout(s.connect,f)),c.forEach(e=>{
clearTimeout(e.retry),e.live=!1,!1===e.options.recover&&(e.position=void 0)}),r.forEach((e,n)=>{
(i||e.sent)&&(r.delete(n),e.fail(t("disconnected",o)))}),S(i?"closed":"connecting",{code:n,reason:o,delay:f})}
s.connect=async()=>{if("closed"!==s.state&&!y)return;clearTimeout(y),y=null;const e=++x;S("connecting");try{
d&&(T??=await d())}catch(n){e===x&&F(1011,n.message)}
e===x&&(p=new f(o,["fanfare.json",...T?["bearer."+T]:[]]),p.onmessage=e=>W(JSON.parse(e.data)),
p.onclose=e=>F(e.code,e.reason),
p.onerror=()=>e===x&&!h&&C(1006,"refused"),b=setTimeout(C,2e4,4004,"no answer"))},s.close=()=>C(1e3,"closed"),
s.on=(e,n)=>((a[e]??=new Set).add(n),()=>a[e].delete(n)),s.subscribe=(e,n={})=>{const o=c.get(e)??U(e)
;if(!o.given)throw t("already_subscribed",e);return Object.assign(o,{options:n,given:!1}),
n.recover?.epoch&&(o.position=n.recover),!h||o.live&&!n.presence||J(o),o},s.publish=(e,n,t)=>j({...t,
type:"publish",channel:e,data:n}),s.history=(e,n)=>j({...n,type:"history",channel:e}),s.presence=e=>j({
type:"presence",channel:e}),s.state="closed",s.connect()}
