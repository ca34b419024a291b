/*! Fanfare's client: the plain protocol in browsers and Node. Manual: fanfare.d.ts, source: fanfare.src.js */
const e=[1e3,1002,1003,1007,1008,1009,4002,4003],n=()=>{},t=(e,n)=>Object.assign(Error(n),{code:e})
;export function Fanfare(o="/ws/connect",s={}){
const c=this,i=new Map,r=new Map,a={},{minDelay:l=500,maxDelay:p=3e4,getToken:u,WebSocket:d=globalThis.WebSocket}=s
;let f,h,m,b,y,g,v,w,{token:T}=s,_=0,E=0,M=0,k=0
;(o=new URL(o,globalThis.location?.href)).protocol=o.protocol.replace("http","ws")
;const S=(e,n)=>a[e]?.forEach(e=>e(n)),x=(e,n)=>S("state",{state:c.state=e,...n
}),D=e=>f.send(JSON.stringify(e));function O(e,n,o){if("closed"===c.state)return o(t("disconnected","closed"))
;e.id=++_,r.set(_,{m:e,done:n,fail:o,sent:h}),h&&D(e)}const j=e=>new Promise((n,t)=>O(e,n,t))
;async function U(e){if(E>=1e3)throw t("too_many_commands","too many commands pending");E++;try{
return await j(e)}finally{E--}}function J(e){const t={channel:e,options:{},given:!0,unsubscribe:()=>{
i.get(e)===t&&(i.delete(e),h&&O({type:"unsubscribe",channel:e},n,n))}};return i.set(e,t),t}function N(e){
const{channel:n,options:t,position:o}=e,s=()=>i.get(n)===e;clearTimeout(e.retry),e.live=!1,O({
type:"subscribe",channel:n,recover:o,presence:t.presence},n=>s()&&W(e,n),o=>{
"disconnected"!==o.code&&s()&&(/^(broker_)?unavailable$/.test(o.code)?e.retry=setTimeout(()=>h&&s()&&N(e),2e3*(1+Math.random())):(i.delete(n),
t.onUnsubscribed?.(o)))})}function W(e,n){e.live=!0,e.position={epoch:n.epoch??"",offset:n.offset??0},
e.options.onSubscribed?.(n),!1===n.recovered&&e.options.onGap?.({...n,dropped:null})}function C(e){
const{type:n,channel:o,id:s}=e,a=i.get(o),l=r.get(s);if("connected"===n&&function(e){c.clientId=e.client_id,
h=!0,m=Date.now(),v=1e3*(e.ping_interval||25),w=1e3*(e.inactivity_timeout||60);for(const n in e.channels){
const t=i.get(n)??J(n);t.live=!t.position&&!t.options.presence,t.position??=e.channels[n]}
i.forEach(e=>e.live||N(e)),r.forEach(e=>{e.sent||D(e.m),e.sent=!0}),F(e.expires_in),x("connected")}(e),
clearTimeout(y),y=setTimeout(()=>{D({type:"ping"}),y=setTimeout(G,w,4004,"silence")},v),
r.delete(s))return"error"===n?l.fail(t(e.code,e.message)):l.done(e);if("subscribed"===n)return W(a??J(o),e)
;if("unsubscribed"===n)i.delete(o);else if(o&&(!a||!function(e,{type:n,epoch:t,offset:o}){
const s=e.position??{};if(!e.live)return!1;if(t&&t!==s.epoch)e.position={epoch:t,offset:o
};else if(o&&"publication"===n){if(o<=s.offset)return!1;e.position={...s,offset:o}}return!0}(a,e)))return
;a?.options["on"+n[0].toUpperCase()+n.slice(1)]?.(e),S(n,e)}function F(e){clearTimeout(g),
u&&e&&(g=setTimeout(async()=>{try{T=await u(),F((await j({type:"refresh",token:T})).expires_in)}catch{
h&&F(Math.max(e/5,1))}},Math.min(800*e,2**31-1)))}function G(e,t){f&&(f.onmessage=f.onclose=null,f.onerror=n,
f.close()),I(e,t)}function I(n,o){[b,y,g].forEach(clearTimeout),h&&Date.now()-m>p&&(k=0),
!u||4001!==n&&h||(T=null),M++,h=f=b=null
;const s=e.includes(n)||4001===n&&!u,a=1011===n||1013===n,d=Math.min(p,l*2**k++)*(a+Math.random())
;s||(b=setTimeout(c.connect,d)),i.forEach(e=>{e.live=!1,!1===e.options.recover&&(e.position=void 0)}),
r.forEach((e,n)=>{(s||e.sent)&&(r.delete(n),e.fail(t("disconnected",o)))}),x(s?"closed":"connecting",{code:n,
reason:o,delay:d})}c.connect=async()=>{if("closed"!==c.state&&!b)return;clearTimeout(b),b=null;const e=++M
;x("connecting");try{u&&(T??=await u())}catch(n){e===M&&I(1011,n.message)}
e===M&&(f=new d(o,["fanfare.json",...T?["bearer."+T]:[]]),f.onmessage=e=>C(JSON.parse(e.data)),
f.onclose=e=>I(e.code,e.reason),
f.onerror=()=>e===M&&!h&&G(1006,"refused"),y=setTimeout(G,2e4,4004,"no answer"))},c.close=()=>G(1e3,"closed"),
c.on=(e,n)=>((a[e]??=new Set).add(n),()=>a[e].delete(n)),c.subscribe=(e,n={})=>{const o=i.get(e)??J(e)
;if(!o.given)throw t("already_subscribed",e);return Object.assign(o,{options:n,given:!1}),
n.recover?.epoch&&(o.position=n.recover),!h||o.live&&!n.presence||N(o),o},c.publish=(e,n,t)=>U({...t,
type:"publish",channel:e,data:n}),c.history=(e,n)=>U({...n,type:"history",channel:e}),c.presence=e=>U({
type:"presence",channel:e}),c.state="closed",c.connect()}
