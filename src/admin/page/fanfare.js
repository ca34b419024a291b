/*! Fanfare's client: the plain protocol in browsers and Node. Manual: fanfare.d.ts, source: fanfare.src.js */
const e=[1e3,1002,1003,1007,1008,1009,4002,4003],n=()=>{},t=(e,n)=>Object.assign(Error(n),{code:e})
;export function Fanfare(o="/ws/connect",s={}){
const c=this,i=new Map,r=new Map,a={},{minDelay:l=500,maxDelay:u=3e4,getToken:p,WebSocket:d=globalThis.WebSocket}=s
;let f,h,b,m,y,g,v,w,{token:T}=s,_=0,x=0,E=0,M=0
;(o=new URL(o,globalThis.location?.href)).protocol=o.protocol.replace("http","ws")
;const k=(e,n)=>a[e]?.forEach(e=>e(n)),S=(e,n)=>k("state",{state:c.state=e,...n});function D(e,n,o){
if("closed"===c.state)return o(t("disconnected","closed"));let s;try{s=JSON.stringify({...e,id:++_})}catch(e){
return o(t("bad_request",e.message))}r.set(_,{text:s,done:n,fail:o,sent:h}),h&&f.send(s)}
const O=e=>new Promise((n,t)=>D(e,n,t));async function j(e){
if(x>=1e3)throw t("too_many_commands","too many commands pending");x++;try{return await O(e)}finally{x--}}
function U(e){const t={channel:e,options:{},given:!0,unsubscribe:()=>{i.get(e)===t&&(i.delete(e),h&&D({
type:"unsubscribe",channel:e},n,n))}};return i.set(e,t),t}function J(e){
const{channel:n,options:t,position:o}=e,s=()=>i.get(n)===e;clearTimeout(e.retry),e.live=!1,D({
type:"subscribe",channel:n,recover:o,presence:t.presence},n=>s()&&N(e,n),o=>{
"disconnected"!==o.code&&s()&&(/^(broker_)?unavailable$/.test(o.code)?e.retry=setTimeout(()=>h&&s()&&J(e),2e3*(1+Math.random())):(i.delete(n),
t.onUnsubscribed?.(o)))})}function N(e,n){e.live=!0,e.position={epoch:n.epoch??"",offset:n.offset??0},
e.options.onSubscribed?.(n),!1===n.recovered&&e.options.onGap?.({...n,dropped:null})}function W(e){
const{type:n,channel:o,id:s}=e,a=i.get(o),l=r.get(s);if("connected"===n&&function(e){c.clientId=e.client_id,
h=!0,b=Date.now(),v=1e3*(e.ping_interval||25),w=1e3*(e.inactivity_timeout||60);for(const n in e.channels){
const t=i.get(n)??U(n);t.live=!t.position&&!t.options.presence,t.position??=e.channels[n]}
i.forEach(e=>e.live||J(e)),r.forEach(e=>{e.sent||f.send(e.text),e.sent=!0}),q(e.expires_in),S("connected")
}(e),clearTimeout(y),y=setTimeout(()=>{f.send('{"type":"ping"}'),y=setTimeout(C,w,4004,"silence")},v),
r.delete(s))return"error"===n?l.fail(t(e.code,e.message)):l.done(e);if("subscribed"===n)return N(a??U(o),e)
;if("unsubscribed"===n)i.delete(o);else if(o&&(!a||!function(e,{type:n,epoch:t,offset:o}){
const s=e.position??{};if(!e.live)return!1;if(t&&t!==s.epoch)e.position={epoch:t,offset:o
};else if(o&&"publication"===n){if(o<=s.offset)return!1;e.position={...s,offset:o}}return!0}(a,e)))return
;a?.options["on"+n[0].toUpperCase()+n.slice(1)]?.(e),k(n,e)}function q(e){clearTimeout(g),
p&&e&&(g=setTimeout(async()=>{try{T=await p(),q((await O({type:"refresh",token:T})).expires_in)}catch{
h&&q(Math.max(e/5,1))}},Math.min(800*e,2**31-1)))}function C(e,t){f&&(f.onmessage=f.onclose=null,f.onerror=n,
f.close()),F(e,t)}function F(n,o){[m,y,g].forEach(clearTimeout),h&&Date.now()-b>u&&(M=0),
!p||4001!==n&&h||(T=null),E++,h=f=m=null
;const s=e.includes(n)||4001===n&&!p,a=1011===n||1013===n,d=Math.min(u,l*2**M++)*(a+Math.random())
;s||(m=setTimeout(c.connect,d)),i.forEach(e=>{e.live=!1,!1===e.options.recover&&(e.position=void 0)}),
r.forEach((e,n)=>{(s||e.sent)&&(r.delete(n),e.fail(t("disconnected",o)))}),S(s?"closed":"connecting",{code:n,
reason:o,delay:d})}c.connect=async()=>{if("closed"!==c.state&&!m)return;clearTimeout(m),m=null;const e=++E
;S("connecting");try{p&&(T??=await p())}catch(n){e===E&&F(1011,n.message)}
e===E&&(f=new d(o,["fanfare.json",...T?["bearer."+T]:[]]),f.onmessage=e=>W(JSON.parse(e.data)),
f.onclose=e=>F(e.code,e.reason),
f.onerror=()=>e===E&&!h&&C(1006,"refused"),y=setTimeout(C,2e4,4004,"no answer"))},c.close=()=>C(1e3,"closed"),
c.on=(e,n)=>((a[e]??=new Set).add(n),()=>a[e].delete(n)),c.subscribe=(e,n={})=>{const o=i.get(e)??U(e)
;if(!o.given)throw t("already_subscribed",e);return Object.assign(o,{options:n,given:!1}),
n.recover?.epoch&&(o.position=n.recover),!h||o.live&&!n.presence||J(o),o},c.publish=(e,n,t)=>j({...t,
type:"publish",channel:e,data:n}),c.history=(e,n)=>j({...n,type:"history",channel:e}),c.presence=e=>j({
type:"presence",channel:e}),c.state="closed",c.connect()}
